"""What users import and type: the client, the command line and the service in one command."""
