"""One page that says what a run did: self-contained HTML, with its twins, figures, proofs and definitions. No torch.

The input is plain data as the API's JSON has it, so the page can be made from a service, from files or in a test.
"""

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from credit import figures, spec
from credit.literature import METHODS

Job = dict[str, Any]
"""``{"results", "series", "spec", "status"}``."""

UNKNOWN = "–"

DEFINITIONS = {
    "Gap": "Test accuracy of the twin minus that of the job, in percentage points.",
    "Recovery": "(accuracy − shallow) / (bp − shallow): 0 is what frozen hidden layers reach, 1 is backpropagation.",
    "Cosine": "Per sample of the probe, between the method's teaching signal and the gradient of backpropagation, both "
    "at the output of the layer, on the same weights and in evaluation mode; mean ± standard deviation over the "
    "samples. 0 is what a random direction has, 1 is backpropagation. Protocol of Launay, Poli and Krzakala 2019, "
    "arXiv:1906.04554.",
    "Cosine, pre-activation": "The same where the layer's weights end: after the derivative of the nonlinearity.",
    "Angle": "Mean over the samples of the arc cosine, in degrees; 90° is no relation, below it the signal descends. "
    "Lillicrap, Cownden, Tweed and Akerman 2016, Nature Communications 7:13276.",
    "Update cosine": "Between the two gradients of the layer's weight matrix over the whole probe.",
    "Norm ratio": "‖signal‖ / ‖gradient of backpropagation‖, mean over the samples.",
    "Activation RMS": "Root mean square of the layer's output over the probe.",
    "Step time": "Median over the training steps, the first interval left out; evaluations and probes do not count.",
    "Peak memory": "Most bytes of live tensors in a training step: weights, optimizer state and intermediate values.",
    "Saved activations": "Bytes that the method keeps from the forward pass for its updates.",
    "Undefined": "What does not exist (the cosine of a zero gradient) is shown as – and leaves a gap in a curve.",
}

OUTPUT_LAYER = "The output layer learns from an error of its own at the output and stands in the table alone."


class Pictures(NamedTuple):
    """Of a job (the first) beside its twins (the others)."""

    curves: Figure
    alignment: Figure


def pictures(jobs: Sequence[Job]) -> Pictures:
    return Pictures(figures.curves(jobs), figures.alignment(jobs[0]))


def report(jobs: Sequence[Job], drawn: Pictures | None = None) -> str:
    """The page of a job (the first) beside its twins (the others); its pictures, where they are ``drawn`` already."""
    own, drawn = jobs[0], drawn or pictures(jobs)
    sections = (
        header(own),
        cards(jobs),
        "<h2>Results</h2>" + result_table(jobs) + layer_accuracies(own),
        "<h2>Learning curves</h2>" + curves(drawn.curves),
        "<h2>Alignment with backpropagation</h2>" + alignment(own, drawn.alignment),
        "<h2>Diagnoses</h2>" + diagnoses(own),
        "<h2>Cost</h2>" + cost_table(jobs),
        "<h2>Proof of the pairing</h2>" + pairing(jobs),
        "<h2>Environment</h2>" + definition_list(part(own, "environment").items()),
        "<h2>What the quantities mean</h2>" + definitions(jobs),
        f"<details><summary>Resolved spec</summary><pre>{escape(json.dumps(own['spec'], indent=2))}</pre></details>",
    )
    style = Path(__file__).with_name("report.css").read_text()
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title(own))}</title>\n<style>\n{style}</style></head>\n<body>\n"
        + "\n".join(sections)
        + f"\n<footer>CreditLab {version(own)}</footer>\n</body></html>\n"
    )


def write(path: Path, jobs: Sequence[Job], drawn: Pictures | None = None) -> None:
    path.write_text(report(jobs, drawn), encoding="utf-8")


# ---- sections --------------------------------------------------------------------------------------------------------


def header(job: Job) -> str:
    state = "" if job["status"] == "succeeded" else f'<p class="status">This job is {escape(job["status"])}.</p>'
    return f'<header><h1>{escape(title(job))}</h1><p class="lead">{escape(what_was_trained(job))}</p>{state}</header>'


def cards(jobs: Sequence[Job]) -> str:
    """The few numbers to take home."""
    own = jobs[0]
    facts = [(percent(accuracy(own)), f"test accuracy with {method(own)}")]
    if (gap := gaps(own).get("bp")) is not None:
        facts.append((points(abs(gap)), f"{'behind' if gap >= 0 else 'ahead of'} its backprop twin"))
    if (recovery := part(own, "pairing").get("recovery")) is not None:
        facts.append((percent(recovery, 0), "recovered of what backprop gains over frozen hidden layers"))
    hidden = [layer["delta_angle_degrees"] for layer in aligned_layers(own) if layer["layer"] != "output"]
    if angles := [round(angle) for angle in hidden if angle is not None]:
        low, high = min(angles), max(angles)
        facts.append((f"{low}°" if low == high else f"{low}°–{high}°", "between its hidden signals and BP's gradients"))
    boxes = (f'<div class="card"><b>{value}</b><span>{escape(text)}</span></div>' for value, text in facts)
    return f'<div class="cards">{"".join(boxes)}</div>'


def result_table(jobs: Sequence[Job]) -> str:
    rows = []
    for job in jobs:
        cost, train = part(job, "cost"), part(job, "train")
        rows.append(
            (
                method(job),
                percent(accuracy(job)),
                points(behind_bp(jobs[0], job)),
                percent(part(job, "pairing").get("recovery")),
                percent(train.get("accuracy")),
                number(cost.get("step_ms_median"), "ms"),
                mebibytes(cost.get("peak_memory_bytes")),
                integer(cost.get("parameters")),
            )
        )
    heads = ("method", "test accuracy", "gap to bp", "recovery", "train accuracy", "step time", "peak memory")
    return table((*heads, "parameters"), rows, own=True)


def layer_accuracies(job: Job) -> str:
    """What the readouts of the layers reach alone, where a method has them."""
    layers: dict[str, float] = part(job, "test").get("layers", {})
    if not layers:
        return ""
    return table(("readout of", "test accuracy"), [(layer, percent(value)) for layer, value in layers.items()])


def curves(drawn: Figure) -> str:
    picture = figures.svg(drawn, "Test accuracy and training loss over the epochs")
    return figure(picture, "Lines end with their last values; the training loss is averaged over neighbouring steps.")


def alignment(job: Job, drawn: Figure) -> str:
    probe = part(job, "alignment").get("probe")
    if not probe:
        return "<p>The spec asked for no alignment probes.</p>"
    picture = figures.svg(drawn, "Cosine and angle to the BP gradient per layer over the epochs")
    text = (
        f"Signals of {method(job)} against those of backpropagation on the same weights, over {probe['samples']} fixed "
        f"images of the {probe['split']} split. {OUTPUT_LAYER}"
    )
    heads = ("layer", "cosine", "± std", "pre-activation", "angle", "update cosine", "norm ratio", "activation RMS")
    rows = [
        (
            layer["layer"],
            decimal(layer["delta_cosine"]["mean"]),
            decimal(layer["delta_cosine"]["std"]),
            decimal(layer.get("preactivation_cosine")),
            degrees(layer["delta_angle_degrees"]),
            decimal(layer["update_cosine"]),
            decimal(layer["norm_ratio"]),
            decimal(layer.get("activation_rms")),
        )
        for layer in aligned_layers(job)
    ]
    return figure(picture, text) + "<h3>At the end of the run</h3>" + table(heads, rows)


def diagnoses(job: Job) -> str:
    found = job["results"].get("diagnoses", [])
    if not found:
        return '<p class="good">None: nothing in this run looked wrong.</p>'
    rows = [(one["code"], one["layer"] or "all", one["evidence"], one["advice"]) for one in found]
    return table(("code", "layer", "evidence", "advice"), rows, kind="text")


def cost_table(jobs: Sequence[Job]) -> str:
    rows = []
    for job in jobs:
        cost = part(job, "cost")
        rows.append((method(job), number(cost.get("train_seconds"), "s"), integer(cost.get("samples_per_second")),
                     mebibytes(cost.get("saved_activation_bytes")), scaled(cost.get("flops_per_step"))))  # fmt: skip
    return table(
        ("method", "training time", "samples per second", "saved activations", "FLOPs per step"), rows, own=True
    )


def pairing(jobs: Sequence[Job]) -> str:
    """The hashes of all jobs, and whether they are equal."""
    proofs = [part(job, "pairing") for job in jobs]
    rows = []
    for name, meaning in (("init_sha256", "initial weights"), ("order_sha256", "order of the samples")):
        found = [proof.get(name) for proof in proofs]
        verdict = "not known yet" if None in found else f"equal in all {len(jobs)}"
        if None not in found and len(set(found)) > 1:
            verdict = "NOT equal: not a pair"
        rows.append((meaning, found[0] or UNKNOWN, verdict if len(jobs) > 1 else "no twins"))
    text = "Twins differ in the learning rule alone: same seed, same initial weights, same order of samples."
    names = ", ".join(f"{method(job)} {job['results'].get('job_id') or ''}".strip() for job in jobs)
    return f"<p>{text}</p>" + table(("SHA-256 of", "of the job", "in its twins"), rows, kind="text", note=names)


def definitions(jobs: Sequence[Job]) -> str:
    told = {name: about(spec.menu(spec.Method)[name]) for name in dict.fromkeys(method(job) for job in jobs)}
    return definition_list([*told.items(), *DEFINITIONS.items()])


def about(kind: type[spec.Spec]) -> str:
    """What a method is, its equation, and whom to cite."""
    facts = METHODS[kind]
    sources = "; ".join(f"{cited.authors} {cited.year}, {cited.url}" for cited in facts.citations)
    return f"{' '.join((kind.__doc__ or '').split())} {facts.equation}. {sources}"


# ---- what a job says about itself ------------------------------------------------------------------------------------


def title(job: Job) -> str:
    return str(job["spec"].get("name") or f"{method(job)} on {job['spec']['dataset']['name']}")


def method(job: Job) -> str:
    return str(job["spec"]["method"]["name"])


def version(job: Job) -> str:
    return escape(str(part(job, "environment").get("creditlab", "")))


def part(job: Job, name: str) -> dict[str, Any]:
    """A part of the results; empty as long as the job has not come to it."""
    found: dict[str, Any] = job["results"].get(name) or {}
    return found


def accuracy(job: Job) -> float | None:
    value: float | None = part(job, "test").get("accuracy")
    return value


def gaps(job: Job) -> dict[str, float | None]:
    """By how much each twin of the job is ahead; None where it is no proven pair."""
    return {twin["method"]: twin["gap"] for twin in part(job, "pairing").get("twins", ())}


def behind_bp(own: Job, job: Job) -> float | None:
    """Test accuracy of the BP twin of `own` minus that of `job`, which is `own` or one of its twins."""
    to_bp, to_job = gaps(own).get("bp"), 0.0 if job is own else gaps(own).get(method(job))
    return None if to_bp is None or to_job is None or method(job) == "bp" else to_bp - to_job


def aligned_layers(job: Job) -> list[dict[str, Any]]:
    layers: list[dict[str, Any]] = part(job, "alignment").get("layers", [])
    return layers


def what_was_trained(job: Job) -> str:
    """The spec in a sentence or two: names, and the options that are not at their defaults."""
    chosen, training = job["spec"], job["spec"]["training"]
    size = integer(part(job, "cost").get("parameters"))
    net = described(chosen["model"], spec.Model, always=("hidden", "activation"))
    learner = described(chosen["method"], spec.Method)
    data = described(chosen["dataset"], spec.Dataset)
    return (
        f"{net} with {size} parameters, trained by {learner} on {data}: "
        f"{training['epochs']} epochs, batches of {training['batch_size']}, {chosen['loss'].replace('_', ' ')}, "
        f"{described(chosen['optimizer'], spec.Optimizer, always=('lr',))}, {training['precision']}, "
        f"seed {training['seed']}."
    )


def described(part: dict[str, Any], union: Any, always: Iterable[str] = ()) -> str:
    """``sgd (lr 0.05, momentum 0.9)``: the name of a part of a spec and what is not at its default."""
    options = []
    for field in fields(spec.member(union, part["name"])):
        value = part.get(field.name)
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        nested = value["name"] if isinstance(value, dict) and "name" in value else None
        if field.name == "name" or value is None or (isinstance(value, dict) and nested is None):
            continue
        if field.name in always or (nested or value) != (getattr(default, "name", default)):
            options.append(f"{field.name.replace('_', ' ')} {nested or shown(value)}")
    return str(part["name"]) + (f" ({', '.join(options)})" if options else "")


def shown(value: Any) -> str:
    """An option's value; of a list of parts, how many there are."""
    if not isinstance(value, list | tuple):
        return str(value)
    return f"of {len(value)}" if any(isinstance(item, dict) for item in value) else " × ".join(map(str, value))


# ---- HTML and numbers ------------------------------------------------------------------------------------------------


def escape(text: Any) -> str:
    return html.escape(str(text))


def table(
    heads: Sequence[str], rows: Iterable[Sequence[Any]], *, own: bool = False, kind: str = "", note: str = ""
) -> str:
    """A table of texts; with `own`, the first row stands out as the job's."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = ""
    for place, row in enumerate(rows):
        body += f"<tr{' class=own' if own and not place else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row)
    caption = f"<caption>{escape(note)}</caption>" if note else ""
    return f'<div class="wide"><table class="{kind}">{caption}<thead><tr>{head}<tbody>{body}</table></div>'


def definition_list(items: Iterable[tuple[Any, Any]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in items) + "</dl>"


def figure(picture: str, caption: str) -> str:
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def decimal(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3f}"


def degrees(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1f}°"


def percent(value: float | None, digits: int = 2) -> str:
    return UNKNOWN if value is None else f"{100 * value:.{digits}f} %"


def points(value: float | None) -> str:
    return UNKNOWN if value is None else f"{100 * value:.2f} pp"


def number(value: float | None, unit: str) -> str:
    return UNKNOWN if value is None else f"{value:.{2 if value < 10 else 1}f} {unit}"


def integer(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def mebibytes(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value / 2**20:.1f} MiB"


def scaled(value: float | None) -> str:
    """A count with its prefix: 1.23 G."""
    if not value:
        return UNKNOWN
    power = min(4, int(math.log10(value) // 3))
    return f"{value / 1000**power:.3g} {('', 'k', 'M', 'G', 'T')[power]}".strip()
