"""DATASETS: spec class → its official files, their checksums, its reader and its constants."""

from credit import spec
from credit.data.image_tree import ImageTree
from credit.data.medmnist import MEDMNIST
from credit.data.parts import Parts
from credit.data.source import Layout, Remote, Source
from credit.formats import readers

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

MNIST_ADDRESS = "https://ossci-datasets.s3.amazonaws.com/mnist"
FASHION_ADDRESS = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
CIFAR_ADDRESS = "https://www.cs.toronto.edu/~kriz"

CIFAR_BATCHES = (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch")
CIFAR_BINARY = tuple(f"cifar-10-batches-bin/{batch}.bin" for batch in CIFAR_BATCHES)
CIFAR_PICKLED = tuple(f"cifar-10-batches-py/{batch}" for batch in CIFAR_BATCHES)

CIFAR100_BINARY = ("cifar-100-binary/train.bin", "cifar-100-binary/test.bin")
CIFAR100_PICKLED = ("cifar-100-python/train", "cifar-100-python/test")
CIFAR100_PICKLES = (
    "735e79b04f092ca3d2e6d07f368c0a7d70d48c48d28865950cc24454cf45129b",
    "4b67687d9933c4db8f0831104447f15b93774f4f464bd0516f0f0f2ac83b7864",
)
CIFAR100_CLASSES = tuple(
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """.split()  # noqa: SIM905  (a list literal takes four times the lines)
)

FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

MNIST = Parts(
    name="mnist",
    layouts=(
        Layout(
            files=IDX_FILES,
            remotes=(
                Remote(
                    url=f"{MNIST_ADDRESS}/train-images-idx3-ubyte.gz",
                    size=9_912_422,
                    checksum="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                ),
                Remote(
                    url=f"{MNIST_ADDRESS}/train-labels-idx1-ubyte.gz",
                    size=28_881,
                    checksum="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                ),
                Remote(
                    url=f"{MNIST_ADDRESS}/t10k-images-idx3-ubyte.gz",
                    size=1_648_877,
                    checksum="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                ),
                Remote(
                    url=f"{MNIST_ADDRESS}/t10k-labels-idx1-ubyte.gz",
                    size=4_542,
                    checksum="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
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
)

FASHION_MNIST = Parts(
    name="fashion-mnist",
    layouts=(
        Layout(
            files=IDX_FILES,
            remotes=(
                Remote(
                    url=f"{FASHION_ADDRESS}/train-images-idx3-ubyte.gz",
                    size=26_421_880,
                    checksum="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
                ),
                Remote(
                    url=f"{FASHION_ADDRESS}/train-labels-idx1-ubyte.gz",
                    size=29_515,
                    checksum="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
                ),
                Remote(
                    url=f"{FASHION_ADDRESS}/t10k-images-idx3-ubyte.gz",
                    size=4_422_102,
                    checksum="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
                ),
                Remote(
                    url=f"{FASHION_ADDRESS}/t10k-labels-idx1-ubyte.gz",
                    size=5_148,
                    checksum="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
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
)

FASHION_MNIST_MINI = Parts(
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
)

CIFAR10 = Parts(
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
                    checksum="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                ),
            ),
        ),
        Layout(files=CIFAR_PICKLED, convert=readers.cifar10_records),
        Layout(files=("cifar-10-python.tar",), members=CIFAR_PICKLED, convert=readers.cifar10_records),
    ),
    train=(
        "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
        "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
        "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
        "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
        "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
    ),
    test=("8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",),
    reader=readers.cifar10,
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2023, 0.1994, 0.2010),
    class_names=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
)

CIFAR100 = Parts(
    name="cifar100",
    layouts=(
        Layout(files=CIFAR100_BINARY),
        Layout(
            files=("cifar-100-binary.tar",),
            members=CIFAR100_BINARY,
            remotes=(
                Remote(
                    url=f"{CIFAR_ADDRESS}/cifar-100-binary.tar.gz",
                    size=168_513_733,
                    checksum="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
                ),
            ),
        ),
        Layout(files=CIFAR100_PICKLED, parts=CIFAR100_PICKLES, convert=readers.cifar100_records),
        Layout(
            files=("cifar-100-python.tar",),
            members=CIFAR100_PICKLED,
            parts=CIFAR100_PICKLES,
            convert=readers.cifar100_records,
        ),
    ),
    train=("f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29",),
    test=("d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a",),
    reader=readers.cifar100,
    mean=(0.5071, 0.4865, 0.4409),
    std=(0.2673, 0.2564, 0.2762),
    class_names=CIFAR100_CLASSES,
)

TINY_IMAGENET = ImageTree(
    name="tiny-imagenet",
    layouts=(
        Layout(
            files=("tiny-imagenet-200.zip",),
            remotes=(
                Remote(
                    url="http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                    size=248_100_043,
                    checksum="6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821",
                ),
            ),
        ),
        Layout(files=("tiny-imagenet-200/wnids.txt",)),
        Layout(files=("tiny-imagenet-200.tar",)),
        Layout(files=("tiny-imagenet-200-subset.tar",)),
    ),
    mean=(0.4802, 0.4481, 0.3975),
    std=(0.2770, 0.2691, 0.2821),
    class_names=(),
)

DATASETS: dict[type[spec.Images], Source] = {
    spec.FashionMNISTMini: FASHION_MNIST_MINI,
    spec.MNIST: MNIST,
    spec.FashionMNIST: FASHION_MNIST,
    spec.CIFAR10: CIFAR10,
    spec.CIFAR100: CIFAR100,
    spec.TinyImageNet: TINY_IMAGENET,
    **MEDMNIST,
}
