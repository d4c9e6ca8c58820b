"""Bodies that are no jobs: what was sent, the status it must get, and the places it must point at."""

import json
from typing import Any, NamedTuple

OK: dict[str, Any] = {"method": "dfa", "model": "mlp", "dataset": "fashion-mnist-mini"}


class Wrong(NamedTuple):
    id: str
    body: bytes
    status: int
    pointers: list[str]


def cnn(block: dict[str, Any]) -> dict[str, Any]:
    """A model whose second block is this one."""
    return {"name": "cnn", "blocks": [{"channels": 4}, block]}


def custom(layer: dict[str, Any]) -> dict[str, Any]:
    """A model whose third layer is this one."""
    return {"name": "custom", "layers": [{"name": "flatten"}, {"name": "dense", "units": 9}, layer]}


def relu(**options: Any) -> dict[str, Any]:
    return {"name": "mlp", "activation": "relu"} | options


def subset(images: int) -> dict[str, Any]:
    return {"name": "fashion-mnist-mini", "train_samples": images}


def spec(**changes: Any) -> dict[str, Any]:
    return OK | changes


def deep(levels: int) -> bytes:
    return b'{"labels": ' + b"[" * levels + b"]" * levels + b"}"


def text(changes: str) -> bytes:
    """A good spec with members added as text, for what ``json.dumps`` would not write."""
    return ('{"method": "dfa", "model": "mlp", "dataset": "fashion-mnist-mini", ' + changes + "}").encode()


MALFORMED: list[tuple[str, bytes, list[str]]] = [
    ("empty", b"", ["#"]),
    ("white space", b" \n\t ", ["#"]),
    ("not json", b"method=dfa", ["#"]),
    ("words", b"hello", ["#"]),
    ("cut off", b'{"method": "dfa"', ["#"]),
    ("two values", b"{} {}", ["#"]),
    ("single quotes", b"{'method': 'dfa'}", ["#"]),
    ("trailing comma", b'{"method": "dfa",}', ["#"]),
    ("comment", b'{"method": "dfa" /* direct */}', ["#"]),
    ("python literal", b'{"method": None}', ["#"]),
    ("byte order mark", b"\xef\xbb\xbf{}", ["#"]),
    ("utf-16", '{"method": "dfa"}'.encode("utf-16"), ["#"]),
    ("not utf-8", b'{"name": "\xff\xfe"}', ["#"]),
    ("raw control character", b'{"name": "a\nb"}', ["#"]),
    ("bad escape", rb'{"name": "\x41"}', ["#"]),
    ("unterminated escapes", b'"' + b'\\"' * 500_000, ["#"]),
    ("NaN", text('"optimizer": {"name": "sgd", "lr": NaN}'), ["#/optimizer/lr"]),
    ("Infinity", text('"optimizer": {"name": "sgd", "lr": Infinity}'), ["#/optimizer/lr"]),
    ("-Infinity", text('"optimizer": {"name": "sgd", "lr": -Infinity}'), ["#/optimizer/lr"]),
    ("NaN alone", b"NaN", ["#"]),
    ("1e400", text('"optimizer": {"name": "sgd", "lr": 1e400}'), ["#/optimizer/lr"]),
    ("-1e400", text('"max_runtime_seconds": -1e400'), ["#/max_runtime_seconds"]),
    ("2**70", text(f'"training": {{"seed": {2**70}}}'), ["#/training/seed"]),
    ("2**63", text(f'"training": {{"seed": {2**63}}}'), ["#/training/seed"]),
    ("-2**63-1", text(f'"priority": {-(2**63) - 1}'), ["#/priority"]),
    ("five thousand digits", text('"priority": ' + "9" * 5000), ["#/priority"]),
    ("duplicate member", b'{"method": "dfa", "method": "bp"}', ["#"]),
    ("duplicate member inside", text('"training": {"epochs": 1, "epochs": 2}'), ["#/training"]),
    ("nested 33 deep", deep(32), ["#"]),
    ("nested 100000 deep", deep(100_000), ["#"]),
    ("open brackets", b"[" * 100_000, ["#"]),
    ("NUL in a value", text(r'"name": "a\u0000b"'), ["#/name"]),
    ("NUL in a label's name", text(r'"labels": {"a\u0000b": "c"}'), ["#/labels"]),
    ("lone surrogate", text(r'"name": "\ud800"'), ["#/name"]),
    ("lone surrogate in a label", text(r'"labels": {"a": "\udfff"}'), ["#/labels/a"]),
    ("lone surrogate in a name of a member", text(r'"\ud800": 1'), ["#"]),
]

INVALID: list[tuple[str, Any, list[str]]] = [
    # the whole
    ("null", None, ["#"]),
    ("true", True, ["#"]),
    ("number", 1, ["#"]),
    ("string", "dfa", ["#"]),
    ("array", [OK], ["#"]),
    ("empty object", {}, ["#/method", "#/model", "#/dataset"]),
    ("empty array", [], ["#"]),
    ("method missing", {"model": "mlp", "dataset": "mnist"}, ["#/method"]),
    ("model missing", {"method": "bp", "dataset": "mnist"}, ["#/model"]),
    ("dataset missing", {"method": "bp", "model": "mlp"}, ["#/dataset"]),
    ("unknown field", spec(optimiser={"name": "sgd"}), ["#/optimiser"]),
    ("unknown field with a slash", spec(**{"a/b~c": 1}), ["#/a~1b~0c"]),
    ("unknown field with a space and a percent", spec(**{"a b%": 1}), ["#/a%20b%25"]),
    ("unknown field without a name", spec(**{"": 1}), ["#/"]),
    # method
    ("unknown method", spec(method="dfaa"), ["#/method"]),
    ("unknown method in full", spec(method={"name": "dfaa"}), ["#/method/name"]),
    ("method in capitals", spec(method="DFA"), ["#/method"]),
    ("method of no name", spec(method={}), ["#/method/name"]),
    ("method empty text", spec(method=""), ["#/method"]),
    ("method null", spec(method=None), ["#/method"]),
    ("method number", spec(method=3), ["#/method"]),
    ("method array", spec(method=["dfa"]), ["#/method"]),
    ("method name null", spec(method={"name": None}), ["#/method/name"]),
    ("method name number", spec(method={"name": 1}), ["#/method/name"]),
    ("unknown option of a method", spec(method={"name": "bp", "feedback": {}}), ["#/method/feedback"]),
    ("unknown feedback kind", spec(method={"name": "dfa", "feedback": {"kind": "shared"}}), ["#/method/feedback/kind"]),
    ("feedback text", spec(method={"name": "dfa", "feedback": "unified"}), ["#/method/feedback"]),
    ("feedback null", spec(method={"name": "dfa", "feedback": None}), ["#/method/feedback"]),
    (
        "unknown field of feedback",
        spec(method={"name": "dfa", "feedback": {"normalise": True}}),
        ["#/method/feedback/normalise"],
    ),
    ("number for a bool", spec(method={"name": "dfa", "feedback": {"normalize": 1}}), ["#/method/feedback/normalize"]),
    ("gain zero", spec(method={"name": "dfa", "feedback": {"gain": 0}}), ["#/method/feedback/gain"]),
    ("gain word", spec(method={"name": "dfa", "feedback": {"gain": "big"}}), ["#/method/feedback/gain"]),
    ("gain bool", spec(method={"name": "dfa", "feedback": {"gain": True}}), ["#/method/feedback/gain"]),
    # model
    ("unknown model", spec(model="resnet"), ["#/model"]),
    ("hidden empty", spec(model={"name": "mlp", "hidden": []}), ["#/model/hidden"]),
    ("hidden number", spec(model={"name": "mlp", "hidden": 800}), ["#/model/hidden"]),
    ("hidden text", spec(model={"name": "mlp", "hidden": "800"}), ["#/model/hidden"]),
    ("hidden object", spec(model={"name": "mlp", "hidden": {"0": 800}}), ["#/model/hidden"]),
    ("width zero", spec(model={"name": "mlp", "hidden": [800, 0]}), ["#/model/hidden/1"]),
    (
        "widths text and float",
        spec(model={"name": "mlp", "hidden": ["800", 1.5]}),
        ["#/model/hidden/0", "#/model/hidden/1"],
    ),
    ("width bool", spec(model={"name": "mlp", "hidden": [True]}), ["#/model/hidden/0"]),
    ("width null", spec(model={"name": "mlp", "hidden": [None]}), ["#/model/hidden/0"]),
    ("width too large", spec(model={"name": "mlp", "hidden": [65_537]}), ["#/model/hidden/0"]),
    ("too many layers", spec(model={"name": "mlp", "hidden": [8] * 257}), ["#/model/hidden"]),
    ("nested widths", spec(model={"name": "mlp", "hidden": [[800]]}), ["#/model/hidden/0"]),
    ("unknown activation", spec(model={"name": "mlp", "activation": "tanhh"}), ["#/model/activation"]),
    ("dropout one", spec(model={"name": "mlp", "dropout": 1}), ["#/model/dropout"]),
    ("dropout negative", spec(model={"name": "mlp", "dropout": -0.1}), ["#/model/dropout"]),
    ("batch_norm text", spec(model={"name": "mlp", "batch_norm": "true"}), ["#/model/batch_norm"]),
    ("no blocks", spec(model={"name": "cnn", "blocks": []}), ["#/model/blocks"]),
    ("block without channels", spec(model=cnn({"kernel": 3})), ["#/model/blocks/1/channels"]),
    ("unknown pool", spec(model=cnn({"channels": 4, "pool": {"kind": "median"}})), ["#/model/blocks/1/pool/kind"]),
    ("unknown option of a pool", spec(model=cnn({"channels": 4, "pool": {"side": 2}})), ["#/model/blocks/1/pool/side"]),
    ("pool number", spec(model=cnn({"channels": 4, "pool": 2})), ["#/model/blocks/1/pool"]),
    ("order without conv", spec(model=cnn({"channels": 4, "order": ["norm"]})), ["#/model/blocks/1/order"]),
    ("kernel beyond the map", spec(model=cnn({"channels": 4, "kernel": 31})), ["#/model/blocks/1/kernel"]),
    (
        "window beyond the map",
        spec(model=cnn({"channels": 4, "pool": {"size": 29}})),
        ["#/model/blocks/1/pool/size"],
    ),
    ("patches that do not tile", spec(model={"name": "mlp_mixer", "patch_size": 5}), ["#/model/patch_size"]),
    ("unknown layer", spec(model=custom({"name": "dens", "units": 9})), ["#/model/layers/2/name"]),
    (
        "option of another layer",
        spec(model=custom({"name": "dense", "channels": 9, "units": 9})),
        ["#/model/layers/2/channels"],
    ),
    ("conv after flatten", spec(model=custom({"name": "conv", "channels": 9})), ["#/model/layers/2"]),
    ("no weight", spec(model={"name": "custom", "layers": [{"name": "flatten"}]}), ["#/model/layers"]),
    ("option of another model", spec(model={"name": "launay_fc", "hidden": [800]}), ["#/model/hidden"]),
    (
        "width missing in a custom layer",
        spec(model=custom({"name": "activation"}) | {"layers": [{"name": "dense"}]}),
        ["#/model/layers/0/units"],
    ),
    # what does not go together
    ("ff with tanh", spec(method="ff"), ["#/method"]),
    ("ff with a cnn", spec(method="ff", model="cnn"), ["#/method"]),
    ("ff with dropout", spec(method="ff", model=relu(dropout=0.1)), ["#/method"]),
    ("ff in full with tanh", spec(method={"name": "ff"}), ["#/method/name"]),
    ("ff under mse", spec(method="ff", model=relu(), loss="mse"), ["#/loss"]),
    ("pepita with a cnn", spec(method="pepita", model="cnn"), ["#/method"]),
    ("pepita with a mixer", spec(method="pepita", model="mlp_mixer"), ["#/method"]),
    ("pepita with batch norm", spec(method="pepita", model={"name": "mlp", "batch_norm": True}), ["#/method"]),
    ("drtp with relu", spec(method="drtp", model=relu()), ["#/method"]),
    ("drtp with lenet", spec(method="drtp", model="lenet"), ["#/method"]),
    ("ebd under cross-entropy", spec(method="ebd"), ["#/loss"]),
    ("mono_forward under mse", spec(method="mono_forward", loss="mse"), ["#/loss"]),
    ("local_loss under bce", spec(method="local_loss", loss="bce"), ["#/loss"]),
    (
        "kp with weight decay",
        spec(method="kp", optimizer={"name": "sgd", "weight_decay": 0.1}),
        ["#/optimizer/weight_decay"],
    ),
    (
        "sparse weights of a cnn",
        spec(method={"name": "sbd", "weight_sparsity": 0.5}, model="cnn"),
        ["#/method/weight_sparsity"],
    ),
    (
        "a companion that is the loss",
        spec(method={"name": "sbd", "score_expansion": {"kind": "stack"}}, loss="mse"),
        ["#/method/score_expansion/companions"],
    ),
    (
        "batch norm and a last batch of one",
        spec(model={"name": "mlp", "batch_norm": True}, dataset=subset(101), training={"batch_size": 50}),
        ["#/training/batch_size"],
    ),
    # options of the methods
    ("forgetting above one", spec(method={"name": "sbd", "forgetting": 1.1}), ["#/method/forgetting"]),
    ("unknown g", spec(method={"name": "ebd", "g": "cube"}, loss="mse"), ["#/method/g"]),
    (
        "negative power",
        spec(method={"name": "dfa", "regularizers": {"power": {"weight": -1}}}),
        ["#/method/regularizers/power/weight"],
    ),
    ("theta word", spec(method={"name": "ff", "theta": "height"}, model=relu()), ["#/method/theta"]),
    ("unknown inference", spec(method={"name": "ff", "inference": "last"}, model=relu()), ["#/method/inference"]),
    ("unknown local loss", spec(method={"name": "local_loss", "loss": "mse"}), ["#/method/loss"]),
    ("head number", spec(method={"name": "mono_forward", "head": 3}), ["#/method/head"]),
    ("decay zero", spec(method={"name": "kp", "decay": 0}), ["#/method/decay"]),
    ("feedback of sbd", spec(method={"name": "sbd", "feedback": {}}), ["#/method/feedback"]),
    ("gain text", spec(method={"name": "pepita", "feedback": {"gain": "auto"}}), ["#/method/feedback/gain"]),
    # dataset
    ("many labels per image", spec(dataset="chestmnist"), ["#/dataset"]),
    ("many labels per image in full", spec(dataset={"name": "chestmnist"}), ["#/dataset/name"]),
    (
        "a second validation split",
        spec(dataset={"name": "pathmnist", "validation_fraction": 0.1}),
        ["#/dataset/validation_fraction"],
    ),
    ("unknown data set", spec(dataset="imagenet"), ["#/dataset"]),
    (
        "more images than there are",
        spec(dataset={"name": "mnist", "train_samples": 60_001}),
        ["#/dataset/train_samples"],
    ),
    ("no images", spec(dataset={"name": "mnist", "test_samples": 0}), ["#/dataset/test_samples"]),
    ("images float", spec(dataset={"name": "mnist", "train_samples": 100.0}), ["#/dataset/train_samples"]),
    ("validation all", spec(dataset={"name": "mnist", "validation_fraction": 1.0}), ["#/dataset/validation_fraction"]),
    (
        "validation of nothing",
        spec(dataset={"name": "mnist", "train_samples": 10, "validation_fraction": 0.001}),
        ["#/dataset/validation_fraction"],
    ),
    ("unknown augmentation", spec(dataset={"name": "mnist", "augment": "flip"}), ["#/dataset/augment"]),
    # optimizer
    ("optimizer text", spec(optimizer="sgd"), ["#/optimizer"]),
    ("optimizer null", spec(optimizer=None), ["#/optimizer"]),
    ("unknown optimizer", spec(optimizer={"name": "sdg"}), ["#/optimizer/name"]),
    ("lr zero", spec(optimizer={"name": "sgd", "lr": 0}), ["#/optimizer/lr"]),
    ("lr negative", spec(optimizer={"name": "sgd", "lr": -1}), ["#/optimizer/lr"]),
    ("lr too large", spec(optimizer={"name": "sgd", "lr": 101}), ["#/optimizer/lr"]),
    ("lr text", spec(optimizer={"name": "sgd", "lr": "0.1"}), ["#/optimizer/lr"]),
    ("lr null", spec(optimizer={"name": "sgd", "lr": None}), ["#/optimizer/lr"]),
    ("lr array", spec(optimizer={"name": "sgd", "lr": [0.1]}), ["#/optimizer/lr"]),
    ("momentum one", spec(optimizer={"name": "sgd", "momentum": 1}), ["#/optimizer/momentum"]),
    ("nesterov without momentum", spec(optimizer={"name": "sgd", "nesterov": True}), ["#/optimizer/nesterov"]),
    ("momentum of adam", spec(optimizer={"name": "adam", "momentum": 0.9}), ["#/optimizer/momentum"]),
    ("unknown schedule", spec(optimizer={"name": "sgd", "schedule": {"name": "cos"}}), ["#/optimizer/schedule/name"]),
    (
        "step without milestones",
        spec(optimizer={"name": "sgd", "schedule": {"name": "step"}}),
        ["#/optimizer/schedule/milestones"],
    ),
    (
        "milestones falling",
        spec(optimizer={"name": "sgd", "schedule": {"name": "step", "milestones": [2, 1]}}),
        ["#/optimizer/schedule/milestones"],
    ),
    # training
    ("training null", spec(training=None), ["#/training"]),
    ("training array", spec(training=[5]), ["#/training"]),
    ("epochs zero", spec(training={"epochs": 0}), ["#/training/epochs"]),
    ("epochs float", spec(training={"epochs": 1.5}), ["#/training/epochs"]),
    ("epochs bool", spec(training={"epochs": True}), ["#/training/epochs"]),
    ("epochs text", spec(training={"epochs": "5"}), ["#/training/epochs"]),
    ("epochs null", spec(training={"epochs": None}), ["#/training/epochs"]),
    ("batch of nothing", spec(training={"batch_size": 0}), ["#/training/batch_size"]),
    ("batch too large", spec(training={"batch_size": 65_537}), ["#/training/batch_size"]),
    (
        "batch larger than the data",
        spec(dataset={"name": "mnist", "train_samples": 64}, training={"batch_size": 128, "drop_last": True}),
        ["#/training/batch_size"],
    ),
    ("seed negative", spec(training={"seed": -1}), ["#/training/seed"]),
    ("seed text", spec(training={"seed": "0"}), ["#/training/seed"]),
    ("unknown device", spec(training={"device": "tpu"}), ["#/training/device"]),
    ("device without number", spec(training={"device": "cuda:"}), ["#/training/device"]),
    ("device number", spec(training={"device": 0}), ["#/training/device"]),
    ("unknown precision", spec(training={"precision": "fp16"}), ["#/training/precision"]),
    ("unknown field of training", spec(training={"epoch": 5}), ["#/training/epoch"]),
    # the rest
    ("unknown loss", spec(loss="hinge"), ["#/loss"]),
    ("loss object", spec(loss={"name": "mse"}), ["#/loss"]),
    ("alignment zero", spec(alignment={"every": 0}), ["#/alignment/every"]),
    ("alignment word", spec(alignment={"every": "step"}), ["#/alignment/every"]),
    ("alignment bool", spec(alignment={"every": True}), ["#/alignment/every"]),
    ("probe of nothing", spec(alignment={"samples": 0}), ["#/alignment/samples"]),
    ("controls text", spec(controls="bp"), ["#/controls"]),
    ("unknown control", spec(controls=["fa"]), ["#/controls/0"]),
    ("control twice", spec(controls=["bp", "bp"]), ["#/controls"]),
    ("controls null", spec(controls=None), ["#/controls"]),
    ("labels array", spec(labels=["a"]), ["#/labels"]),
    ("label number", spec(labels={"a": 1}), ["#/labels/a"]),
    ("label null", spec(labels={"a": None}), ["#/labels/a"]),
    ("label too long", spec(labels={"a": "b" * 257}), ["#/labels/a"]),
    ("label without a name", spec(labels={"": "b"}), ["#/labels/"]),
    ("too many labels", spec(labels={f"k{n}": "v" for n in range(33)}), ["#/labels"]),
    ("name too long", spec(name="n" * 201), ["#/name"]),
    ("name number", spec(name=1), ["#/name"]),
    ("runtime zero", spec(max_runtime_seconds=0), ["#/max_runtime_seconds"]),
    ("runtime text", spec(max_runtime_seconds="1h"), ["#/max_runtime_seconds"]),
    ("priority too high", spec(priority=101), ["#/priority"]),
    ("priority float", spec(priority=0.5), ["#/priority"]),
    # several at once
    (
        "five at once",
        spec(method="dfaa", loss="hinge", training={"epochs": 0}, optimizer={"name": "sgd", "lr": -1}, colour="red"),
        ["#/method", "#/loss", "#/optimizer/lr", "#/training/epochs", "#/colour"],
    ),
]

WRONG = [Wrong(name, body, 400, pointers) for name, body, pointers in MALFORMED] + [
    Wrong(name, json.dumps(body).encode(), 422, pointers) for name, body, pointers in INVALID
]
