"""HTTP in, HTTP out: parse, one call into ``lab``, answer."""
