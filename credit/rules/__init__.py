"""RULES: spec class -> rule class, one line per method."""

from dataclasses import asdict

from torch import nn

from credit import spec
from credit.rule import Rule, Task
from credit.rules.bp import BP
from credit.rules.dfa import DFA
from credit.rules.fa import FA
from credit.rules.shallow import Shallow

RULES: dict[type[spec.Spec], type[Rule]] = {
    spec.BP: BP,
    spec.Shallow: Shallow,
    spec.FA: FA,
    spec.DFA: DFA,
}

FOR_THE_NET = {"name", "inject", "forward_init"}
"""Fields of a method's spec that say how its net is built and cut; the rest is the rule's."""


def build_rule(method: spec.Method, net: nn.Sequential, task: Task) -> Rule:
    """The rule of a method's spec, its feedback drawn, on the CPU."""
    options = {key: value for key, value in asdict(method).items() if key not in FOR_THE_NET}
    return RULES[type(method)](net, task, **options)
