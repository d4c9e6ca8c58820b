"""Uniform sign-concordant feedback (Liao, Leibo and Poggio, arXiv 1510.05067; Xiao et al., ICLR 2019).

B = c · sign(W)        c: the standard deviation of the layer's initial weights        the recursion of ``fa``
"""

from torch import Tensor

from credit.mirror import SignConcordant
from credit.rule import deviation


class USF(SignConcordant):
    """B is recomputed from the signs of W at every step."""

    def magnitude(self, k: int, W: Tensor) -> float:  # noqa: ARG002  (the signature of all kin)
        return deviation(W, self.init)
