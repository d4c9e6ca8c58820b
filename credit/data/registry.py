"""DATASETS: spec class → its official files, their checksums, its reader and its constants."""

from credit import spec
from credit.data import readers
from credit.data.source import Layout, Remote, Source

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

MNIST_ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist"
FASHION_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
CIFAR_ADDRESS = "https://www.cs.toronto.edu/~kriz"

CIFAR_BATCHES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
CIFAR_BINARY = tuple(f"cifar-10-batches-bin/{batch}.bin" for batch in CIFAR_BATCHES)
CIFAR_PICKLED = tuple(f"cifar-10-batches-py/{batch}" for batch in CIFAR_BATCHES)

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_CITATION = (
    "Xiao, Rasul and Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, "
    "arXiv:1708.07747, 2017"
)

MNIST = Source(
    name="mnist",
    layouts=(
        Layout(
            files=IDX_FILES,
            remotes=(
                Remote(
                    url=f"{MNIST_ADDRESS}/train-images-idx3-ubyte.gz",
                    size=9_912_422,
                    sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                Remote(
                    url=f"{MNIST_ADDRESS}/train-labels-idx1-ubyte.gz",
                    size=28_881,
                    sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
                Remote(
                    url=f"{MNIST_ADDRESS}/t10k-images-idx3-ubyte.gz",
                    size=1_648_877,
                    sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                Remote(
                    url=f"{MNIST_ADDRESS}/t10k-labels-idx1-ubyte.gz",
                    size=4_542,
                    sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                ),
            ),
        ),
    ),
    train=(
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    test=(
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
    reader=readers.idx,
    mean=(0.1307,),
    std=(0.3081,),
    class_names=tuple("0123456789"),
    licence="CC BY-SA 3.0",
    citation=(
        "LeCun, Bottou, Bengio and Haffner, Gradient-based learning applied to document recognition, "
        "Proceedings of the IEEE 86(11), 1998"
    ),
)

FASHION_MNIST = Source(
    name="fashion-mnist",
    layouts=(
        Layout(
            files=IDX_FILES,
            remotes=(
                Remote(
                    url=f"{FASHION_ADDRESS}/train-images-idx3-ubyte.gz",
                    size=26_421_880,
                    sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                Remote(
                    url=f"{FASHION_ADDRESS}/train-labels-idx1-ubyte.gz",
                    size=29_515,
                    sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                Remote(
                    url=f"{FASHION_ADDRESS}/t10k-images-idx3-ubyte.gz",
                    size=4_422_102,
                    sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                Remote(
                    url=f"{FASHION_ADDRESS}/t10k-labels-idx1-ubyte.gz",
                    size=5_148,
                    sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
                ),
            ),
        ),
    ),
    train=(
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    test=(
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
    reader=readers.idx,
    mean=(0.2860,),
    std=(0.3530,),
    class_names=FASHION_CLASSES,
    licence="MIT, Copyright (c) 2017 Zalando SE, https://tech.zalando.com",
    citation=FASHION_CITATION,
)

FASHION_MNIST_MINI = Source(
    name="fashion-mnist-mini",
    bundled=True,
    layouts=(Layout(files=IDX_FILES),),
    train=(
        "75160f837651dde775b4fd9dea1bb7553cfac40348cc57c68f6b39cb0074904a",
        "04f45099e6fb006d6bc9513294ffdae927861e382b72e36787b8e11d386e3ea3",
    ),
    test=(
        "15a92dd1e9b16ea361928086e77df4dfa890c255c00b5a8c8162c1040ce8eef1",
        "234596aeb6eb48133ec99a62541f90bc0728c9559a681f1e0638037462458f2c",
    ),
    reader=readers.idx,
    mean=FASHION_MNIST.mean,
    std=FASHION_MNIST.std,
    class_names=FASHION_CLASSES,
    licence=FASHION_MNIST.licence,
    citation=FASHION_CITATION,
)

CIFAR10 = Source(
    name="cifar10",
    layouts=(
        Layout(files=CIFAR_BINARY),
        Layout(
            files=("cifar-10-binary.tar",),
            members=CIFAR_BINARY,
            remotes=(
                Remote(
                    url=f"{CIFAR_ADDRESS}/cifar-10-binary.tar.gz",
                    size=170_052_171,
                    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ),
            ),
        ),
        Layout(files=CIFAR_PICKLED, convert=readers.cifar_records),
        Layout(files=("cifar-10-python.tar",), members=CIFAR_PICKLED, convert=readers.cifar_records),
    ),
    train=(
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    ),
    test=("8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",),
    reader=readers.cifar,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    licence="none stated; cite the report",
    citation=(
        "Krizhevsky, Learning Multiple Layers of Features from Tiny Images, "
        "technical report, University of Toronto, 2009"
    ),
)

DATASETS: dict[type[spec.Images], Source] = {
    spec.FashionMNISTMini: FASHION_MNIST_MINI,
    spec.MNIST: MNIST,
    spec.FashionMNIST: FASHION_MNIST,
    spec.CIFAR10: CIFAR10,
}
