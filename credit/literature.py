"""What the menu does not say of a method: its equation, how credit flows, what it keeps, whom to cite. No torch."""

from dataclasses import dataclass
from typing import Literal

from credit import spec
from credit.spec import Citation


@dataclass(frozen=True)
class MethodFacts:
    """A method in a few words."""

    title: str
    equation: str
    """The teaching signal of hidden layer k, or the loss that it learns from."""
    flow: Literal["backward", "broadcast", "local", "forward", "none"]
    """How credit reaches a block; forward: by a second forward pass; none: hidden blocks get none."""
    order: Literal["sequential", "parallel"]
    """In which order hidden layers can be told."""
    state: str | None
    """What the method keeps beside the net's own weights."""
    citations: tuple[Citation, ...]


RUMELHART = Citation(
    "D. E. Rumelhart, G. E. Hinton, R. J. Williams",
    "Learning representations by back-propagating errors",
    1986,
    "Nature 323, 533–536",
    "https://doi.org/10.1038/323533a0",
)
LILLICRAP = Citation(
    "T. P. Lillicrap, D. Cownden, D. B. Tweed, C. J. Akerman",
    "Random synaptic feedback weights support error backpropagation for deep learning",
    2016,
    "Nature Communications 7, 13276",
    "https://arxiv.org/abs/1411.0247",
)
LIAO = Citation(
    "Q. Liao, J. Z. Leibo, T. Poggio",
    "How important is weight symmetry in backpropagation?",
    2016,
    "AAAI 2016",
    "https://arxiv.org/abs/1510.05067",
)
XIAO_2019 = Citation(
    "W. Xiao, H. Chen, Q. Liao, T. Poggio",
    "Biologically-plausible learning algorithms can scale to large datasets",
    2019,
    "ICLR 2019",
    "https://arxiv.org/abs/1811.03567",
)
AKROUT = Citation(
    "M. Akrout, C. Wilson, P. C. Humphreys, T. Lillicrap, D. B. Tweed",
    "Deep learning without weight transport",
    2019,
    "NeurIPS 2019",
    "https://arxiv.org/abs/1904.05391",
)
NOKLAND = Citation(
    "A. Nøkland",
    "Direct feedback alignment provides learning in deep neural networks",
    2016,
    "NeurIPS 2016",
    "https://arxiv.org/abs/1609.01596",
)
LAUNAY = Citation(
    "J. Launay, I. Poli, F. Krzakala",
    "Principled training of neural networks with direct feedback alignment",
    2019,
    "arXiv",
    "https://arxiv.org/abs/1906.04554",
)
LAUNAY_2020 = Citation(
    "J. Launay, I. Poli, F. Boniface, F. Krzakala",
    "Direct feedback alignment scales to modern deep learning tasks and architectures",
    2020,
    "NeurIPS 2020",
    "https://arxiv.org/abs/2006.12878",
)
WEBSTER = Citation(
    "M. B. Webster, J. Choi, C. Ahn",
    "Learning the connections in direct feedback alignment",
    2020,
    "OpenReview, submitted to ICLR 2021",
    "https://openreview.net/forum?id=zgGmAx9ZcY",
)
FRENKEL = Citation(
    "C. Frenkel, M. Lefebvre, D. Bol",
    "Learning without feedback: fixed random learning signals allow for feedforward training of deep neural networks",
    2021,
    "Frontiers in Neuroscience 15, 629892",
    "https://arxiv.org/abs/1909.01311",
)
UZUN = Citation(
    "Uzun, Erdogan, Pehlevan, Erdogan",
    "Score broadcast and decorrelation",
    2026,
    "arXiv",
    "https://arxiv.org/abs/2605.30638",
)
ERDOGAN = Citation(
    "M. Erdogan, C. Pehlevan, A. T. Erdogan",
    "Error broadcast and decorrelation as a potential artificial and natural learning mechanism",
    2025,
    "NeurIPS 2025",
    "https://arxiv.org/abs/2504.11558",
)
HINTON = Citation(
    "G. Hinton",
    "The forward-forward algorithm: some preliminary investigations",
    2022,
    "arXiv",
    "https://arxiv.org/abs/2212.13345",
)
GONG = Citation(
    "Gong, Li, Abdulla",
    "Mono-Forward: revisiting forward-forward through objective-locality decomposition",
    2026,
    "arXiv, version 2",
    "https://arxiv.org/abs/2501.09238",
)
NOKLAND_2019 = Citation(
    "A. Nøkland, L. H. Eidnes",
    "Training neural networks with local error signals",
    2019,
    "ICML 2019",
    "https://arxiv.org/abs/1901.06656",
)
DELLAFERRERA = Citation(
    "G. Dellaferrera, G. Kreiman",
    "Error-driven input modulation: solving the credit assignment problem without a backward pass",
    2022,
    "ICML 2022",
    "https://arxiv.org/abs/2201.11665",
)

RECURSION = "δ_k = (δ_{k+1} B_{k+1}) ⊙ f′_k(a_k)"

METHODS: dict[type[spec.Spec], MethodFacts] = {
    spec.BP: MethodFacts(
        "Backpropagation", "δ_k = (δ_{k+1} W_{k+1}) ⊙ f′_k(a_k)", "backward", "sequential", None, (RUMELHART,)
    ),
    spec.Shallow: MethodFacts("Frozen hidden layers", "δ_k = 0 for k < L", "none", "parallel", None, (LAUNAY_2020,)),
    spec.FA: MethodFacts(
        "Feedback alignment",
        RECURSION,
        "backward",
        "sequential",
        "one fixed random B_{k+1} per weight, of the shape of W_{k+1}",
        (LILLICRAP,),
    ),
    spec.USF: MethodFacts(
        "Uniform sign-concordant feedback",
        f"{RECURSION}, B = c · sign(W)",
        "backward",
        "sequential",
        None,
        (LIAO, XIAO_2019),
    ),
    spec.FRSF: MethodFacts(
        "Fixed random-magnitude sign-concordant feedback",
        f"{RECURSION}, B = |M⁰| ⊙ sign(W)",
        "backward",
        "sequential",
        "one fixed random M⁰ per weight, of the shape of W_{k+1}",
        (LIAO,),
    ),
    spec.BRSF: MethodFacts(
        "Batch-wise random-magnitude sign-concordant feedback",
        f"{RECURSION}, B = |Mᵗ| ⊙ sign(W)",
        "backward",
        "sequential",
        "a random Mᵗ per weight, drawn anew for every batch",
        (LIAO,),
    ),
    spec.KP: MethodFacts(
        "Kolen-Pollack learning",
        f"{RECURSION}, B ← λ (B − η ΔW)",
        "backward",
        "sequential",
        "one learned B_{k+1} per weight, of the shape of W_{k+1}",
        (AKROUT,),
    ),
    spec.DFA: MethodFacts(
        "Direct feedback alignment",
        "δ_k = (s B_k) ⊙ f′_k(a_k)",
        "broadcast",
        "parallel",
        "one fixed random B_k (classes × width) per hidden layer, or slices of a single one",
        (NOKLAND, LAUNAY),
    ),
    spec.DKP: MethodFacts(
        "Direct Kolen-Pollack learning",
        "δ_k = (s B_k) ⊙ f′_k(a_k), B_k ← (1 − λ) B_k − η sᵀ h_k / N",
        "broadcast",
        "parallel",
        "one learned B_k (classes × width) per hidden layer",
        (WEBSTER,),
    ),
    spec.DRTP: MethodFacts(
        "Direct random target projection",
        "δ_k = (y B_k) ⊙ f′_k(a_k)",
        "broadcast",
        "parallel",
        "one fixed random B_k (classes × width) per hidden layer",
        (FRENKEL,),
    ),
    spec.SBD: MethodFacts(
        "Score broadcast and decorrelation",
        "δ_k = (s R_k) ⊙ g′(h_k) ⊙ f′_k(a_k), R_k ← λ R_k + (1−λ) sᵀ g(h_k) / N",
        "broadcast",
        "parallel",
        "the running correlation R_k (classes × width) of the score with each hidden layer",
        (UZUN, ERDOGAN),
    ),
    spec.EBD: MethodFacts(
        "Error broadcast and decorrelation",
        "δ_k = (ε R_k) ⊙ g′(h_k) ⊙ f′_k(a_k), R_k ← λ R_k + (1−λ) εᵀ g(h_k) / N",
        "broadcast",
        "parallel",
        "the running correlation R_k (classes × width) of the error with each hidden layer",
        (ERDOGAN,),
    ),
    spec.FF: MethodFacts(
        "Forward-Forward",
        "L_k = BCE(σ(Σ_i h_{k,i}² − θ), t), t = 1 for images with their true label, 0 with a wrong one",
        "local",
        "parallel",
        "the units' running mean activities of the peer term, a linear readout of each layer between first and last",
        (HINTON,),
    ),
    spec.MonoForward: MethodFacts(
        "Mono-Forward",
        "L_k = CE(softmax(h_k M_kᵀ), y), δ_k = ((softmax(h_k M_kᵀ) − y) M_k) ⊙ f′_k(a_k)",
        "local",
        "parallel",
        "one learned projection M_k (classes × width) per hidden layer",
        (GONG,),
    ),
    spec.LocalLoss: MethodFacts(
        "Local error signals",
        "L_k = (1 − β) CE(D_k(h_k), y) + β MSE(S(N_k(h_k)), S(y))",
        "local",
        "parallel",
        "a learned decoder D_k and a learned matching layer N_k per hidden layer",
        (NOKLAND_2019,),
    ),
    spec.PEPITA: MethodFacts(
        "Present the error to perturb the input to modulate activity",
        "ΔW_k = (h_k − h_kᵉ)ᵀ h_{k−1}ᵉ / N, hᵉ the activations for the input x + s Fᵀ",
        "forward",
        "sequential",
        "one fixed random F (inputs × classes)",
        (DELLAFERRERA,),
    ),
}
