"""A report's figures as tables for people, each with what its figures are of."""

from collections.abc import Mapping
from typing import Any

from contextssl_jax.reports.page import Table
from contextssl_jax.reports.paper_tables import beside_r2, beside_retrieval

Report = Mapping[str, Any]
Cell = str | float | int | None
_PROBE_NAMES = {
    "ridge_weak": "ridge, weak",
    "ridge_strong": "ridge, strong",
    "linear": "linear, Adam",
    "mlp": "MLP, Adam",
}
_DEFINITIONS = {
    "r2": "R² is the mean over the group's entries, so that the mean of the data scores 0.",
    "r2_global": "R² is the official code's, one mean over samples and entries in the latents' own"
    " units: a constant scores above 0 where entries differ in their means (column 'constant').",
}


def tables(report: Report) -> dict[str, Table]:
    """Returns the report's tables by a short name, those that have figures, in their order."""
    made = {
        "paper": beside_r2(
            report,
            _PROBE_NAMES,
            f"{_views(report, 'fit', 'test')} {_probes(report)} {source(report)}",
        ),
        "adaptivity": _adaptivity(report),
        "r2": _r2(report, "r2", "R² of latents"),
        "r2_global": _r2(report, "r2_global", "R² of latents, the official definition"),
        "r2_entries": _entries(report),
        "erasure": _erasure(report),
        "accuracy_features": _features_accuracy(report),
        "accuracy_embeddings": _embeddings_accuracy(report),
        "retrieval": _retrieval(report),
        "paper_retrieval": beside_retrieval(report, f"{_retrieved(report)} {source(report)}"),
        "predictor": _predictor(report),
        "accuracy_told": _told_accuracy(report),
        "seconds": _seconds(report),
    }
    return {name: table for name, table in made.items() if table is not None and table.rows}


def source(report: Report) -> str:
    """Says in one sentence which model, contexts and run a figure is of."""
    p = report["provenance"]
    seconds = sum(p["seconds"].values())
    draws = f"{p['draws']} contexts" if p["draws"] > 1 else "one context"
    sparse = ", read as sparsely as in training" if p["sparse"] else ""
    spread = ", mean ± standard deviation across them" if p["draws"] > 1 else ""
    read = f"{draws} of the {p['context_split']} split{sparse}"
    return (
        f"{p['method']} on {p['data']}, config {p['config']}, seed {p['seed']},"
        f" step {p['step']}; {read if any(p['lengths']) else 'no context'} (evaluation seed"
        f" {p['evaluation_seed']}){spread}; the whole report took {seconds:.0f} s"
        f" on {p['device']}."
    )


def _views(report: Report, fit: str, test: str) -> str:
    views = report["provenance"]["views"]
    return (
        f"Fitted on {views[fit]['views']:,} views of {views[fit]['records']:,} records of the"
        f" {views[fit]['split']} split, scored on {views[test]['views']:,} views of"
        f" {views[test]['records']:,} records of the {views[test]['split']} split."
    )


def _probes(report: Report) -> str:
    probe = report["provenance"]["probe"]
    return (
        f"Ridge penalties {probe['weak']} (weak) and {probe['strong']} (strong) of the embeddings'"
        f" variance; Adam probes: {probe['steps']:,} steps of {probe['batch']} records at"
        f" {probe['learning_rate']}, MLP with hidden layers {tuple(probe['hidden'])}."
    )


def _lengths(report: Report) -> tuple[str, ...]:
    return tuple(str(length) for length in report["provenance"]["lengths"])


def _row(report: Report, *path: str) -> list[Cell]:
    """The figures at report[path[0]][path[1]]... by length, with deviations where there are any."""

    def at(name: str) -> Mapping[str, float]:
        tree = report[name]
        for key in path[1:]:
            tree = tree[key]
        found: Mapping[str, float] = tree
        return found

    means = at(path[0])
    if f"{path[0]}_std" not in report:
        return [means[length] for length in _lengths(report)]
    spread = at(f"{path[0]}_std")
    return [f"{means[c]:.3f} ± {spread[c]:.3f}" for c in _lengths(report)]


def _adaptivity(report: Report) -> Table:
    rows: list[list[Cell]] = [
        [group, target, name, *_row(report, "adaptivity", group, probe, target)]
        for group in report["adaptivity"]
        for target in ("single", "pair")
        for probe, name in _PROBE_NAMES.items()
    ]
    return Table(
        "Adaptivity",
        ("group", "told from", "probe", *_lengths(report)),
        rows,
        "How far a group's R² under its own context lies above its R² under the others', by tokens"
        " of context: 0 is no adaptation. 'single': a view's own latents; 'pair': the relative"
        " action from both views. The size depends on the probe: a weak ridge reads what is"
        f" squeezed to a small variance, Adam in few steps does not. {_DEFINITIONS['r2']}"
        f" {_views(report, 'fit', 'test')} {_probes(report)} {source(report)}",
    )


def _r2(report: Report, kind: str, title: str) -> Table:
    features = report["r2_features" if kind == "r2" else "r2_features_global"]
    floor = "mean" if kind == "r2" else "global"
    rows: list[list[Cell]] = [
        [
            *(environment, group, target, name),
            *_row(report, kind, environment, group, probe, target),
            features[group][probe][target],
            report["r2_floor"][group][target][floor],
        ]
        for environment, by_group in report[kind].items()
        for group in by_group
        for target in ("single", "pair")
        for probe, name in _PROBE_NAMES.items()
    ]
    return Table(
        title,
        ("context", "group", "told from", "probe", *_lengths(report), "features", "constant"),
        rows,
        "Of embeddings with no action of their own (z⁺) by tokens of context, of the encoder's"
        f" features, and of the best constant. {_DEFINITIONS[kind]}"
        f" {_views(report, 'fit', 'test')} {_probes(report)} {source(report)}",
    )


def _erasure(report: Report) -> Table:
    names = {"readable": "R² by least squares", "share": "share of variance"}
    rows: list[list[Cell]] = [
        [environment, group, names[name], *_row(report, "erasure", environment, group, name)]
        for environment, groups in report["erasure"].items()
        for group, by_name in groups.items()
        for name in by_name
    ]
    return Table(
        "Erased or squeezed",
        ("context", "group", "measure", *_lengths(report)),
        rows,
        "Of embeddings with no action of their own (z⁺), by tokens of context. R² by least squares,"
        " without a penalty and in double precision, is what can be read of a group's latents, of"
        " whatever size. The share of the embeddings' variance that a polynomial of second degree"
        " in these latents explains is how large it is. Erased is what is not read; what is read"
        f" with a share near 0 is squeezed. {_views(report, 'fit', 'test')} {source(report)}",
    )


def _entries(report: Report) -> Table:
    longest = _lengths(report)[-1]
    rows: list[list[Cell]] = []
    for environment, groups in report["r2_entries"].items():
        for by_probe in groups.values():
            for target in ("single", "pair"):
                rows += [
                    [environment, target, entry]
                    + [by_probe[probe][target][entry][longest] for probe in _PROBE_NAMES]
                    for entry in by_probe["linear"][target]
                ]
    return Table(
        f"R² of each entry after {longest} tokens",
        ("context", "told from", "entry", *_PROBE_NAMES.values()),
        rows,
        f"{_views(report, 'fit', 'test')} {_probes(report)} {source(report)}",
    )


def _features_accuracy(report: Report) -> Table | None:
    if "accuracy_features" not in report:
        return None
    rows: list[list[Cell]] = [
        [probe, *by_share.values()] for probe, by_share in report["accuracy_features"].items()
    ]
    return Table(
        "Classes from the encoder's features",
        ("probe", "all labels", "10 %", "1 %"),
        rows,
        "Accuracy on untouched images (where the data set has such). "
        f"{_views(report, 'fit_images', 'test_images')} {_classifiers(report)} {source(report)}",
    )


def _embeddings_accuracy(report: Report) -> Table | None:
    if "accuracy_embeddings" not in report:
        return None
    rows: list[list[Cell]] = [
        [
            environment,
            probe,
            f"{100 * float(share):.0f} %",
            *_row(report, "accuracy_embeddings", environment, probe, share),
        ]
        for environment, by_probe in report["accuracy_embeddings"].items()
        for probe, by_share in by_probe.items()
        for share in by_share
    ]
    return Table(
        "Classes from embeddings",
        ("context", "probe", "labels", *_lengths(report)),
        rows,
        "Accuracy on transformed views, by tokens of context: not the same task as on untouched"
        f" images. {_views(report, 'fit', 'test')} {_classifiers(report)} {source(report)}",
    )


def _classifiers(report: Report) -> str:
    probe = report["provenance"]["probe"]
    return (
        f"Linear: standardised vectors, {probe['steps']:,} steps of Adam. kNN:"
        f" {probe['neighbours']} neighbours, or as many as there are."
    )


def _retrieval(report: Report) -> Table:
    p = report["provenance"]
    rows: list[list[Cell]] = [
        [
            environment,
            measure.upper() if measure == "mrr" else measure.replace("hit", "H"),
            *_row(report, "retrieval", environment, measure),
            p["retrieval_chance"][measure],
        ]
        for environment, by_measure in report["retrieval"].items()
        for measure in by_measure
    ]
    return Table(
        "Retrieval",
        ("context", "measure", *_lengths(report), "chance"),
        rows,
        f"{_retrieved(report)} {source(report)}",
    )


def _retrieved(report: Report) -> str:
    p = report["provenance"]
    views = p["views"]["retrieval"]
    each = views["views"] // views["records"]
    left_out = "left out" if p["exclude_source"] else "among them, as in the official code"
    return (
        f"Query: a view and the action to another; candidates: the record's {each} views, the"
        f" query's own {left_out}. Ties count as a random order would."
        f" {views['records']} records of the {views['split']} split."
    )


def _told_accuracy(report: Report) -> Table | None:
    if "accuracy_told" not in report:
        return None
    rows: list[list[Cell]] = [
        [environment, *_row(report, "accuracy_told", environment)]
        for environment in report["accuracy_told"]
    ]
    views = report["provenance"]["views"]["test"]
    return Table(
        "Classes that the model tells",
        ("context", *_lengths(report)),
        rows,
        "Accuracy by tokens of context, with no fitting; a class is right where it is the one of"
        f" the context's environment. {views['views']:,} views of the {views['split']} split."
        f" {source(report)}",
    )


def _predictor(report: Report) -> Table | None:
    if "predictor_r2" not in report:
        return None
    names = {"z+": "z⁺, its own latents", "z_r": "z_r, the latents the action leads to"}
    rows: list[list[Cell]] = [
        [environment, group, names[token], *_row(report, "predictor_r2", environment, group, token)]
        for environment, groups in report["predictor_r2"].items()
        for group, tokens in groups.items()
        for token in tokens
    ]
    views = report["provenance"]["views"]["retrieval"]
    return Table(
        "The model's own predictor",
        ("context", "group", "token", *_lengths(report)),
        rows,
        "R² of the latents that the auxiliary predictor tells, with no fitting; it was trained to"
        f" tell the groups that its context shows, and may be far off for others."
        f" {views['views']:,} views of the {views['split']} split. {source(report)}",
    )


def _seconds(report: Report) -> Table:
    seconds = report["provenance"]["seconds"]
    encoding = seconds["encoding"]
    rows: list[list[Cell]] = [[n, s, s / encoding] for n, s in seconds.items()]
    total = sum(seconds.values())
    return Table(
        "Time",
        ("part", "seconds", "of the encoding"),
        [*rows, ["all", total, total / encoding]],
        f"Each view is encoded once; compiling is included. {source(report)}",
    )
