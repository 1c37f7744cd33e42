"""The `anklealign` command: one subcommand for each task.

    anklealign --help
    anklealign run                        # `python -m anklealign run` is the same

Every command imports what it needs when it starts, so `anklealign --help` imports no PyTorch, no
pandas and no NumPy. Exit status: 0 done, 1 failed, 2 wrong command; `predict`, `compare`, `diff`
and `pr-report` state what 1 and 2 mean in their help.
"""

import importlib
import importlib.util
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from anklealign import __version__
from anklealign.config import environment, paths

Layout = Literal["folders", "file_names", "label_studio", "table"]
Score = Literal["accuracy", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss"]
SERVE_MODULES = ("fastapi", "h11", "prometheus_client", "pydantic_settings", "starlette", "uvicorn")

app = typer.Typer(
    name="anklealign",
    help="Train, explain, calibrate and serve photo classifiers in a reproducible DVC pipeline.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelFolder = Annotated[Path, typer.Option("--model", help="Folder of the trained bundle.")]
Revision = Annotated[str, typer.Argument(help="Git revision, experiment or 'workspace'.")]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    if arguments is None:
        environment.ensure_utf8()
    # A path may contain letters that the terminal's encoding lacks.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        app(arguments if arguments is None else list(arguments), prog_name="anklealign")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


def _print_version(*, wanted: bool) -> None:
    if wanted:
        print(f"anklealign {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Train, explain, calibrate and serve photo classifiers in a reproducible DVC pipeline."""


@app.command("add", epilog="Example: anklealign add ~/photos/ankles ankles --dry-run")
def _add(
    data: Annotated[
        str,
        typer.Argument(
            help="Folder of the photos, zip or tar file, or http(s) or s3 address. It is never "
            "written to."
        ),
    ],
    name: Annotated[str, typer.Argument(help="Name of the dataset in params.yaml.")],
    layout: Annotated[
        Layout | None, typer.Option(help="Layout of the folder. Default: detected.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Key of the dataset config, such as path_column=file; may be repeated.",
        ),
    ] = None,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Report only; write nothing.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="List every skipped item.")] = False,
    strip_metadata: Annotated[
        bool,
        typer.Option(
            "--strip-metadata",
            help="Remove positions, names and all other metadata from the copies of JPEG, PNG and "
            "WebP photos; the pixels and the orientation stay.",
        ),
    ] = False,
) -> None:
    """Report on a folder of photos, copy it to data/raw/NAME and version it with DVC."""
    from anklealign.cli import add  # noqa: PLC0415 - see the module docstring

    raise typer.Exit(
        add.add_folder(
            data,
            name,
            layout,
            settings or (),
            dry_run=dry_run,
            verbose=verbose,
            strip_metadata=strip_metadata,
        )
    )


@app.command("convert", epilog="Example: anklealign convert ~/photos/coco")
def _convert(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="Folder or archive of the photos and the label files (COCO, CVAT, Pascal VOC, "
            "VIA, Labelbox, LabelMe, YOLO, Parquet and others). An archive is unpacked beside "
            "itself.",
        ),
    ],
) -> None:
    """Convert label files of other tools to labels.csv in their folder, for `anklealign add`."""
    from anklealign.cli import label_conversion  # noqa: PLC0415

    raise typer.Exit(label_conversion.convert_labels(data))


@app.command(
    "run",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog="Example: anklealign run train    (arguments are passed to `dvc repro`)",
)
def _run(context: typer.Context) -> None:
    """Check params.yaml, run `dvc repro` and print the summary."""
    from anklealign.cli import check, summary  # noqa: PLC0415

    if status := check.print_errors(preflight=True):
        raise typer.Exit(status)
    # The stages run with `python` from PATH, which must be this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [sys.executable, "-m", "dvc", "repro", *context.args]
    status = subprocess.run(command, env=os.environ | {"PATH": path}, check=False).returncode  # noqa: S603
    here = Path.cwd()
    if status and not any((folder / ".git").exists() for folder in (here, *here.parents)):
        print(
            f"run: {here} is not in a git repository; run `git init`,\n"
            "or `dvc config --local core.no_scm true` to use DVC without git",
            file=sys.stderr,
        )
    raise typer.Exit(status or summary.print_summary())


@app.command("restore", epilog="Example: anklealign restore my-experiment")
def _restore(
    revision: Annotated[str, typer.Argument(help="Git revision or experiment.")] = "HEAD",
) -> None:
    """Restore data, model, metrics and plots of a revision, all of one run."""
    from anklealign.cli import restore  # noqa: PLC0415

    raise typer.Exit(restore.restore_results(revision))


@app.command("push", epilog="Example: anklealign push")
def _push() -> None:
    """Push the last run and DVC's run cache, so that a clone repeats no stage."""
    from anklealign.cli import push  # noqa: PLC0415

    raise typer.Exit(push.push_results())


@app.command("predict", epilog="Example: anklealign predict photos/ --out predictions.csv")
def _predict(
    photos: Annotated[
        list[str],
        typer.Argument(
            help="Photos, folders to search, lists (.txt, a path or address in each line), and "
            "addresses (https://, s3://, ...)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="CSV file to write.")],
    model: ModelFolder = paths.MODEL,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    *,
    backend: Annotated[
        Literal["local", "ray"], typer.Option(help="This machine, or the running Ray cluster.")
    ] = "local",
    gpus: Annotated[
        float, typer.Option(help="GPUs of each shard on the cluster; 0.25: four share one.", min=0)
    ] = 1,
    refuse_unlike: Annotated[
        bool, typer.Option(help="Predict no class for photos unlike the training photos.")
    ] = False,
) -> None:
    """Predict the classes of photos with a trained bundle.

    An interrupted command continues when it is started again.
    Exit status: 0 all photos read, 1 some unreadable, 2 none readable or wrong command.
    """
    from anklealign.cli import predict  # noqa: PLC0415

    raise typer.Exit(
        predict.predict_photos(
            photos, out, model, device, refuse_unlike=refuse_unlike, backend=backend, gpus=gpus
        )
    )


@app.command("evaluate", epilog="Example: anklealign evaluate model ~/photos/other-site")
def _evaluate(
    bundle: Annotated[Path, typer.Argument(help="Folder of the trained bundle.")],
    data: Annotated[
        str,
        typer.Argument(
            help="Labeled photos that the model never saw: a folder, zip or tar file, or address. "
            "It is never written to."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = paths.EVALUATION,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Key of the dataset config, such as layout=table; may be repeated.",
        ),
    ] = None,
    *,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Leave out photos of other labels; classes may have no photo."
        ),
    ] = False,
) -> None:
    """Score a bundle on labeled photos of another place or year, without training.

    Exit status: 0 done, 1 the bundle or the photos cannot be used.
    """
    from anklealign.cli import evaluate  # noqa: PLC0415

    raise typer.Exit(
        evaluate.evaluate_bundle(bundle, data, out, settings or (), device=device, partial=partial)
    )


@app.command("export", epilog="Example: anklealign export --out export/model.onnx")
def _export(
    model: ModelFolder = paths.MODEL,
    out: Annotated[Path, typer.Option(help="ONNX file to write.")] = paths.EXPORT,
    web: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write instead a folder for any web space: the page, which runs the model in the "
            "browser, so that no photo leaves the device. Needs npm.",
        ),
    ] = None,
) -> None:
    """Export a trained bundle to ONNX and check it against PyTorch."""
    _require("onnx", "onnxruntime", "onnxscript", *(SERVE_MODULES if web else ()))
    if web:
        # By name: the library does not import the service.
        raise typer.Exit(importlib.import_module("service.web_demo").write_demo(model, web))
    from anklealign.cli import export  # noqa: PLC0415

    raise typer.Exit(export.export_model(model, out))


@app.command("serve", epilog="Example: ANKLEALIGN_PORT=8080 anklealign serve")
def _serve() -> None:
    """Serve the web page and the API of the trained bundle.

    Settings come from ANKLEALIGN_* environment variables.
    """
    _require(*SERVE_MODULES)
    # By name: the library does not import the service.
    sys.argv[1:] = []  # this command's arguments are not the service's
    runpy.run_module("service", run_name="__main__", alter_sys=True)


@app.command("compare", epilog="Example: anklealign compare --score accuracy run-a run-b")
def _compare(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="Revisions. Default: the current commit, its experiments and the workspace."
        ),
    ] = None,
    score: Annotated[Score, typer.Option(help="Score to rank by.")] = "balanced_accuracy",
) -> None:
    """List all runs by variant, each with its difference to the best.

    Exit status: 0 done, 2 no finished run.
    """
    from anklealign.experiments import runs  # noqa: PLC0415

    raise typer.Exit(runs.print_runs(names or [], score))


@app.command("diff", epilog="Example: anklealign diff main workspace --data --out changes.csv")
def _diff(
    first: Revision,
    second: Revision,
    score: Annotated[Score, typer.Option(help="Score to compare.")] = "balanced_accuracy",
    *,
    data: Annotated[
        bool, typer.Option("--data", help="Compare the photos and labels, not the models.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="CSV file for the full list of --data.")] = None,
) -> None:
    """Test whether SECOND is better than FIRST, or list what changed in the data.

    Exit status: 0 compared, 2 the two cannot be compared.
    """
    if data:
        from anklealign.experiments import data_diff  # noqa: PLC0415

        raise typer.Exit(data_diff.print_data_diff(first, second, out))
    if out:
        raise typer.BadParameter("--out needs --data")
    from anklealign.experiments import comparison  # noqa: PLC0415

    raise typer.Exit(comparison.print_comparison(first, second, score))


@app.command("report", epilog="Example: anklealign report --against main")
def _report(
    *,
    photos: Annotated[
        bool,
        typer.Option("--photos", help="Draw plots/prepare, clean and split; needs no model."),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Git revision or experiment. Write report/report.html: this run beside REV, and "
            "which photos one of them gets right and the other not.",
        ),
    ] = None,
) -> None:
    """Write plots/report.html from the results of the last run.

    Exit status: 0 done, 1 no finished run, 2 the two runs cannot be compared.
    """
    from anklealign.cli import report  # noqa: PLC0415

    if photos and against is not None:
        raise typer.BadParameter("--photos has no comparison; leave out --against")
    raise typer.Exit(report.draw_photos() if photos else report.write_page(against))


@app.command("pr-report", epilog="Example: anklealign pr-report main")
def _pull_request_report(
    base: Annotated[str, typer.Argument(help="Git revision to compare with.")] = "main",
) -> None:
    """Write report/report.md: how the workspace differs from BASE, for a pull request.

    Exit status: 0 done, 2 BASE cannot be read.
    """
    from anklealign.experiments import pull_request  # noqa: PLC0415

    raise typer.Exit(pull_request.write_report(base))


@app.command("label-issues", epilog="Example: anklealign label-issues --out label_issues")
def _label_issues(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = paths.LABEL_ISSUES,
    address: Annotated[
        str, typer.Option(help="Label Studio's address before a photo's path.")
    ] = "/data/local-files/?d=",
    from_name: Annotated[
        str, typer.Option(help="Name of the Choices tag in the Label Studio project.")
    ] = "choice",
    to_name: Annotated[
        str, typer.Option(help="Name of the Image tag, and key of the data.")
    ] = "image",
) -> None:
    """Rank the photos whose label is probably wrong, for review."""
    from anklealign.cli import label_issues  # noqa: PLC0415

    raise typer.Exit(label_issues.write_label_issues(out, address, from_name, to_name))


@app.command("correct", epilog="Example: anklealign correct project-1.json --reviewer R2")
def _correct(
    reviewed: Annotated[
        Path,
        typer.Argument(
            help="JSON export of Label Studio, or label_issues.csv with a column new_label."
        ),
    ],
    reviewer: Annotated[
        str, typer.Option(help="Code of the reviewer, instead of the one in the file.")
    ] = "",
) -> None:
    """Take over reviewed label issues as corrections, which prepare applies."""
    from anklealign.cli import correct  # noqa: PLC0415

    raise typer.Exit(correct.correct_labels(reviewed, reviewer))


@app.command("next", epilog="Example: anklealign next --count 50")
def _next(
    photos: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Unlabeled photos, and folders to search. Default: the unlabeled photos of the "
            "dataset."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Number of photos.")] = 50,
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = paths.NEXT_PHOTOS,
    *,
    address: Annotated[
        str, typer.Option(help="Label Studio's address before a photo's path.")
    ] = "/data/local-files/?d=",
    from_name: Annotated[
        str, typer.Option(help="Name of the Choices tag in the Label Studio project.")
    ] = "choice",
    to_name: Annotated[
        str, typer.Option(help="Name of the Image tag, and key of the data.")
    ] = "image",
) -> None:
    """Choose the unlabeled photos to label next: uncertain and different ones."""
    from anklealign.cli import next_photos  # noqa: PLC0415

    raise typer.Exit(
        next_photos.write_next(
            photos or [], count, out, address=address, from_name=from_name, to_name=to_name
        )
    )


@app.command("learning-curve", epilog="Example: anklealign learning-curve --repeats 3")
def _learning_curve(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = paths.LEARNING_CURVE,
    repeats: Annotated[int, typer.Option(min=1, help="Training runs per size.")] = 3,
) -> None:
    """Train the selected model on 25 to 100 % of the subjects: would more photos help?

    Exit status: 0 done, 1 there is no split, or a training run failed.
    """
    from anklealign.cli import learning_curve  # noqa: PLC0415

    raise typer.Exit(learning_curve.write_learning_curve(out, repeats))


@app.command("summary", epilog="Example: anklealign summary")
def _summary() -> None:
    """Print scores, counts and pictures of the last run."""
    from anklealign.cli import summary  # noqa: PLC0415

    raise typer.Exit(summary.print_summary())


@app.command("check", epilog="Example: anklealign check")
def _check() -> None:
    """Check params.yaml, the selected network and dvc.yaml's dependencies. Writes nothing."""
    from anklealign.cli import check  # noqa: PLC0415

    raise typer.Exit(check.print_errors())


@app.command("sync-deps", epilog="Example: anklealign sync-deps")
def _sync_dependencies() -> None:
    """Write the code and library dependencies of the stages into dvc.yaml and pins.yaml."""
    from anklealign.cli import sync_deps  # noqa: PLC0415

    raise typer.Exit(sync_deps.write_dependencies())


def _require(*modules: str) -> None:
    """Exit with a remedy when a module of the `serve` extra is not installed."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"anklealign: {', '.join(missing)} not installed; install the extra: "
            "pip install 'anklealign[serve]', or in a checkout: make .venv/serve",
            file=sys.stderr,
        )
        raise typer.Exit(1)
