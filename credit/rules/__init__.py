"""RULES: spec class -> rule class, one line per method."""

from dataclasses import asdict

from torch import nn

from credit import spec
from credit.rule import Rule, Task
from credit.rules.bp import BP
from credit.rules.brsf import BRSF
from credit.rules.dfa import DFA
from credit.rules.dkp import DKP
from credit.rules.drtp import DRTP
from credit.rules.fa import FA
from credit.rules.ff import FF
from credit.rules.frsf import FRSF
from credit.rules.kp import KP
from credit.rules.local_loss import LocalLoss
from credit.rules.mono_forward import MonoForward
from credit.rules.pepita import PEPITA
from credit.rules.sbd import SBD
from credit.rules.shallow import Shallow
from credit.rules.usf import USF

RULES: dict[type[spec.Spec], type[Rule]] = {
    spec.BP: BP,
    spec.Shallow: Shallow,
    spec.FA: FA,
    spec.USF: USF,
    spec.FRSF: FRSF,
    spec.BRSF: BRSF,
    spec.KP: KP,
    spec.DFA: DFA,
    spec.DKP: DKP,
    spec.DRTP: DRTP,
    spec.SBD: SBD,
    spec.EBD: SBD,
    spec.FF: FF,
    spec.MonoForward: MonoForward,
    spec.LocalLoss: LocalLoss,
    spec.PEPITA: PEPITA,
}

FOR_THE_NET = {"name", "inject", "forward_init"}
"""Fields of a method's spec that say how its net is built and cut; the rest is the rule's."""


def build_rule(method: spec.Method, net: nn.Sequential, task: Task) -> Rule:
    """The rule of a method's spec, its feedback drawn, on the CPU."""
    options = {key: value for key, value in asdict(method).items() if key not in FOR_THE_NET}
    return RULES[type(method)](net, task, **options)
