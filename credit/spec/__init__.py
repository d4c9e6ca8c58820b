"""The menu: every method, model, data set, optimizer and option as a frozen dataclass.

The one vocabulary of the whole project: the API's schema, the command line, the training loop and the tests all
derive from these classes. No torch here, so that reading a spec costs nothing.

Ranges are ``annotated_types`` marks; the JSON layer (``lab.specs``) checks them and names the field that is wrong.
What a single field cannot know (a method that cannot train a model) is checked in ``Run.__post_init__``.
"""

from credit.spec.base import *
from credit.spec.datasets import *
from credit.spec.layers import *
from credit.spec.methods import *
from credit.spec.models import *
from credit.spec.optimizers import *
from credit.spec.regularizers import *
from credit.spec.run import *
