"""MedMNIST's two-dimensional sets: one npz file each, of 28×28 images, as published on Zenodo (record 10519652)."""

from credit import spec
from credit.data.parts import UNKNOWN, Parts
from credit.data.source import Layout, Remote
from credit.formats import readers

ADDRESS = "https://zenodo.org/records/10519652/files"
ORGANS = (
    "bladder", "femur-left", "femur-right", "heart", "kidney-left", "kidney-right", "liver", "lung-left", "lung-right",
    "pancreas", "spleen",
)  # fmt: skip
MEMBERS = tuple(f"{split}_{part}.npy" for split in ("train", "test", "val") for part in ("images", "labels"))


def published(kind: type[spec.MedMNIST], md5: str, class_names: tuple[str, ...]) -> Parts:
    """A set whose authors publish the MD5 of its npz file; the mean and deviation of 0.5 are their convention."""
    name: str = kind.name  # type: ignore[attr-defined]
    remote = Remote(url=f"{ADDRESS}/{name}.npz?download=1", checksum=md5)
    half = (0.5,) * kind.shape[0]
    return Parts(
        name=name,
        layouts=(Layout(files=(f"{name}.npz",), members=MEMBERS, archive=md5, remotes=(remote,)),),
        train=(UNKNOWN, UNKNOWN),
        test=(UNKNOWN, UNKNOWN),
        validation=(UNKNOWN, UNKNOWN),
        reader=readers.npy,
        mean=half,
        std=half,
        class_names=class_names,
    )


MEDMNIST: dict[type[spec.Images], Parts] = {
    kind: published(kind, md5, class_names)
    for kind, md5, class_names in (
        (
            spec.PathMNIST,
            "a8b06965200029087d5bd730944a56c1",
            (
                "adipose",
                "background",
                "debris",
                "lymphocytes",
                "mucus",
                "smooth muscle",
                "normal colon mucosa",
                "cancer-associated stroma",
                "colorectal adenocarcinoma epithelium",
            ),
        ),
        (
            spec.DermaMNIST,
            "0744692d530f8e62ec473284d019b0c7",
            (
                "actinic keratoses and intraepithelial carcinoma",
                "basal cell carcinoma",
                "benign keratosis-like lesions",
                "dermatofibroma",
                "melanoma",
                "melanocytic nevi",
                "vascular lesions",
            ),
        ),
        (
            spec.OCTMNIST,
            "c68d92d5b585d8d81f7112f81e2d0842",
            ("choroidal neovascularization", "diabetic macular edema", "drusen", "normal"),
        ),
        (
            spec.PneumoniaMNIST,
            "28209eda62fecd6e6a2d98b1501bb15f",
            ("normal", "pneumonia"),
        ),
        (
            spec.RetinaMNIST,
            "bd4c0672f1bba3e3a89f0e4e876791e4",
            ("0", "1", "2", "3", "4"),
        ),
        (
            spec.BreastMNIST,
            "750601b1f35ba3300ea97c75c52ff8f6",
            ("malignant", "normal, benign"),
        ),
        (
            spec.BloodMNIST,
            "7053d0359d879ad8a5505303e11de1dc",
            (
                "basophil",
                "eosinophil",
                "erythroblast",
                "immature granulocytes (myelocytes, metamyelocytes and promyelocytes)",
                "lymphocyte",
                "monocyte",
                "neutrophil",
                "platelet",
            ),
        ),
        (
            spec.TissueMNIST,
            "ebe78ee8b05294063de985d821c1c34b",
            (
                "Collecting Duct, Connecting Tubule",
                "Distal Convoluted Tubule",
                "Glomerular endothelial cells",
                "Interstitial endothelial cells",
                "Leukocytes",
                "Podocytes",
                "Proximal Tubule Segments",
                "Thick Ascending Limb",
            ),
        ),
        (
            spec.OrganAMNIST,
            "68e3f8846a6bd62f0c9bf841c0d9eacc",
            ORGANS,
        ),
        (
            spec.OrganCMNIST,
            "b9ceb9546e10131b32923c5bbeaea2b1",
            ORGANS,
        ),
        (
            spec.OrganSMNIST,
            "9ab87b696fb54e2a387ebe992d6ed5f1",
            ORGANS,
        ),
    )
}
