# SPDX-License-Identifier: Apache-2.0
"""``styleavatar create``: a video becomes an avatar through the services."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from styleavatar_client.errors import ClientError
from styleavatar_client.rest import DEFAULT_GATEWAY, GatewayClient


class Preset(StrEnum):
    """Size of the networks."""

    NANO = "nano"
    LITE = "lite"
    HD = "hd"
    PAPER = "paper"
    PAPER_PLUS = "paper+"


def create(
    video: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Portrait video of one person.")
    ],
    consent: Annotated[
        str, typer.Option(help="Statement of consent of the person shown, in words. Required.")
    ] = "",
    subject: Annotated[str, typer.Option(help="Name of the person shown.")] = "",
    given_by: Annotated[
        str, typer.Option(help="Who consents, if not the person shown (a guardian, say).")
    ] = "",
    source: Annotated[str, typer.Option(help="Where the video comes from.")] = "",
    preset: Annotated[
        Preset, typer.Option(help="nano (128 px), lite (256), hd (512), paper or paper+ (1024).")
    ] = Preset.LITE,
    minutes: Annotated[
        float | None, typer.Option(help="Training time; the preset's usual one if not given.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", dir_okay=False, help="Fetch the finished bundle to this zip."
        ),
    ] = None,
    gateway: Annotated[
        str, typer.Option(help="URL of the gateway.", envvar="STYLEAVATAR_URL")
    ] = DEFAULT_GATEWAY,
    api_key: Annotated[
        str, typer.Option(help="API key, where one is asked for.", envvar="STYLEAVATAR_API_KEY")
    ] = "",
) -> None:
    """Upload a video and its consent, follow the training, and fetch the avatar."""
    console = Console()
    try:
        with GatewayClient(gateway, api_key=api_key) as client:
            tracking = client.tracking_address()
            accepted = client.create_avatar(
                video,
                consent,
                subject=subject,
                given_by=given_by,
                source=source,
                preset=preset.value,
                minutes=minutes,
            )
            avatar_id = str(accepted["avatar_id"])
            job_id = str(accepted["job_id"])
            console.print(f"Avatar {avatar_id} is queued as {job_id}.")
            try:
                job = follow(client, job_id, console)
            except KeyboardInterrupt as stop:
                url = gateway.rstrip("/")
                typer.echo(
                    f"No longer followed; the training goes on, and {url} shows it. To end it: "
                    f"curl -X POST {url}/v1/training-jobs/{job_id}:cancel",
                    err=True,
                )
                raise typer.Exit(130) from stop
            _refuse_unfinished(job)
            if output is not None:
                client.fetch_bundle(avatar_id, output)
                typer.echo(f"Bundle written to {output}.")
    except ClientError as error:
        typer.secho(f"styleavatar create: {error}", fg="red", err=True)
        raise typer.Exit(2) from error
    # Not by the console, which would break the line: it is to be copied.
    words = f"--avatar {avatar_id} --video DRIVER.mp4 --tracking {tracking}"
    typer.echo(f"Ready: styleavatar drive {words}")


def follow(client: GatewayClient, job_id: str, console: Console) -> dict[str, Any]:
    """Shows a job's progress as a bar until it ends.

    Args:
        client: Talks to the gateway.
        job_id: The job.
        console: Where to show it.

    Returns:
        The job in its final state.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[detail]}"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("queued", total=1.0, detail="")
        for job in client.follow_job(job_id):
            progress = job["progress"]
            if progress is None:
                bar.update(task, description=job["state"].lower())
            else:
                bar.update(
                    task,
                    description=progress["stage"],
                    completed=progress["overall_fraction"],
                    detail=_detail(job),
                )
        job = client.get_job(job_id)
        if job["state"] == "SUCCEEDED":
            bar.update(task, completed=1.0, description="done", detail="")
    return job


def _detail(job: dict[str, Any]) -> str:
    progress = job["progress"]
    parts = [progress["message"]]
    if progress["eta_s"] is not None:
        parts.append(f"{progress['eta_s'] / 60:.1f} min left")
    if progress["psnr_db"] is not None:
        parts.append(f"{progress['psnr_db']:.2f} dB")
    if job["resume_count"]:
        parts.append(f"resumed {job['resume_count']} times")
    return " · ".join(part for part in parts if part)


def _refuse_unfinished(job: dict[str, Any]) -> None:
    """Ends with the job's own reason when it did not succeed."""
    if job["state"] == "CANCELED":
        raise ClientError("the job was canceled", code="CANCELED")
    if job["state"] == "FAILED":
        error = job["error"] or {"message": "the job failed", "reason": ""}
        raise ClientError(error["message"], code="FAILED", reason=error["reason"])
