"""One run of one benchmark, from a look at the machine to a stored result."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.harness import provenance
from benchmarks.harness.benchmark import Benchmark, Parameters
from benchmarks.harness.machine import cores_used_by_others
from benchmarks.harness.preflight import Refused, preflight
from benchmarks.harness.results import Code, Conditions, Machine, Result, Validity, result_folder, write_result


def run(
    benchmark: Benchmark, parameters: Parameters, *, root: Path, label: str, argv: Sequence[str], anyway: bool = False
) -> tuple[Path, Result]:
    """Measure and store under ``root``; returns the new file and what is in it.

    A busy machine does not stop a run: its result is stored with the reason why it is not for quoting. Raises
    `preflight.Refused` where nothing should be measured at all, unless ``anyway``, and OSError when ``root`` cannot be
    written to.
    """
    folder = result_folder(root, label)  # before minutes are spent
    commit, dirty = provenance.commit()
    code = Code(commit=commit, dirty=dirty, sha256=provenance.code_sha256(benchmark.modules))
    load_average_before, others = provenance.load_average(), cores_used_by_others()
    with preflight(benchmark.name, folder, others) as found:
        if found.refusals and not anyway:
            raise Refused("; ".join(found.refusals))
        started = datetime.now(UTC)
        measurement = benchmark.measure(parameters)
        ended = datetime.now(UTC)

    reasons = [*found.refusals, *found.flags, *measurement.faults]
    caveats = list(measurement.caveats)
    if dirty is not False:
        caveats.append("the code differs from any commit" if dirty else "no git checkout: the commit is not known")
    result = Result(
        schema_version=1,
        run_id=uuid.uuid4().hex,
        benchmark=benchmark.name,
        started=started,
        ended=ended,
        code=code,
        argv=provenance.shareable(argv),
        parameters=dict(parameters),
        machine=Machine(label=label, **provenance.machine()),
        conditions=Conditions(
            load_average_before=load_average_before,
            load_average_after=provenance.load_average(),
            cores_used_by_others_before=round(others, 3),
        ),
        packages=provenance.packages(),
        samples=measurement.samples,
        summary=measurement.summary,
        findings=measurement.findings,
        validity=Validity(valid=not reasons, reasons=reasons, caveats=caveats),
    )
    return write_result(result, root), result
