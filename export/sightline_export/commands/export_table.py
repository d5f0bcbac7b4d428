"""The result of an export for people: what was published where, and how close the export is."""

from rich.table import Table

from sightline.repository.publish import PublishedVersion
from sightline.repository.report import FROM, GateReport, PreprocessOrigin
from sightline_export.gate.checks import ACCURACY, AGREEMENT, MAX_DELTA_P, MEAN_DELTA_P


def table(published: PublishedVersion) -> Table:
    """Return the rows for a version that was published, or was there already."""
    report = published.report
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(style="bold")
    rows.add_column(overflow="fold")
    rows.add_row("model", f"{published.model} version {published.number}")
    if origin := report.provenance.get(FROM):
        rows.add_row("from", f"{origin}, weights: {report.provenance['weights']}")
    rows.add_row("precision", f"{report.precision}, ONNX opset {report.opset}, {report.model_bytes:,} bytes")
    if seen := report.preprocess_origin:
        rows.add_row("images seen", f"{seen.source}{_doubted(seen)}")
    if report.gate is not None:
        _add_gate(rows, report.gate)
    if comparison := report.against_fp32:
        rows.add_row("size", f"{report.model_bytes / comparison.bytes:.0%} of FP32's {comparison.bytes:,} bytes")
        for speed in comparison.speed:
            ratios = ", ".join(f"{ratio:.2f} times FP32" for ratio in speed.ratio.values())
            rate = speed.images_per_second[report.precision]
            rows.add_row("speed", f"{ratios} in batches of {speed.batch} ({rate:,.0f} images/s in this process)")
    rows.add_row("card", report.card_sha256[:12])
    rows.add_row("folder", str(published.folder))
    return rows


def _add_gate(rows: Table, gate: GateReport) -> None:
    measured = {check.name: check.measured for check in gate.checks}
    images = f"{gate.images:,} {gate.data.split} images of {gate.data.name}" if gate.data is not None else f"{gate.images:,} images"
    rows.add_row("gate", f"passed {len(gate.checks)} checks on {images}")
    rows.add_row("same label", f"{measured[AGREEMENT]:.2%}")
    rows.add_row("|Δp|", f"max {measured[MAX_DELTA_P]:.1e}, mean {measured[MEAN_DELTA_P]:.1e}")
    if ACCURACY in measured:
        rows.add_row("accuracy", f"{measured[ACCURACY]:.2%} in ONNX Runtime, {measured['accuracy of torch']:.2%} in torch{_of(gate)}")
    else:
        rows.add_row("accuracy", "not known: nobody says what the images show")


def _of(gate: GateReport) -> str:
    if gate.accuracy is None:
        return ""
    low, high = gate.accuracy.interval_95
    return f", of {gate.accuracy.n:,} images (95 % interval {low:.1%} to {high:.1%})"


def _doubted(seen: PreprocessOrigin) -> str:
    stated = f", with {', '.join(seen.stated)} stated" if seen.stated and not seen.source.startswith("stated") else ""
    if not seen.assumed:
        return stated
    ways = f", one of {seen.different_ways} ways of its published versions" if seen.different_ways > 1 else ""
    return f"{stated}: assumed{ways}"
