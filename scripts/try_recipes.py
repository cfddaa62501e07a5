"""Carry out the Dockerfiles under docker/ step by step on a plain Debian 12, without Docker, and try what comes out.

usage: python3 scripts/try_recipes.py [ingest|training|all] [--keep]

Each RUN is run for real, each COPY takes from the build context that .dockerignore leaves, and at the end the image's
user runs the recipe's checks. Debian stands in for the base images. For training, whose base image is Amazon Linux
with CUDA, the commands AWS_IMAGE_HAS in scripts/recipes.py first install what that image is known to have; Horovod is
then compiled with NCCL, which takes CUDA's compiler but no GPU. Downloads some 2 GB, and needs 12 GB of disk meanwhile.

Needs root and debootstrap. Everything lies under build/recipes; the bare Debian and the logs stay there, the rest goes
unless --keep is given. Exits with 0 when all is well, 1 when a step or a check fails, 77 when this machine cannot try.
"""

from __future__ import annotations

import argparse
import posixpath
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from debian_root import PATH, carry_machine, find_user, make_base, run_in_root, why_not_here
from dockerfile import Ignored, Instruction, RecipeError, context_files, expand, parse
from recipes import RECIPES, Recipe
from shell import StepError, run_logged
from shell import step as show_step

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "recipes"
CANNOT = 77
SHOWN = 110  # characters of an instruction


@dataclass
class Stage:
    """A stage of a recipe while it is built: its root, and what its instructions have set so far."""

    root: Path
    environment: dict[str, str]
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0"
    entrypoint: list[str] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """What an instruction sees: ENV wins over ARG."""
        return {**self.arguments, **self.environment}

    def path(self, inside: str) -> Path:
        """Where the image's path `inside` lies on this machine; RecipeError when a link there leads elsewhere."""
        place = self.root / Path(self.folder, inside).as_posix().lstrip("/")
        real = place.parent.resolve() / place.name
        if place != self.root and self.root.resolve() not in real.parents:
            raise RecipeError(f"{inside}: a link on the way leads out of the image")
        return place


class Build:
    """The build of one recipe in the empty folder `work`."""

    def __init__(self, recipe: Recipe, base: Path, work: Path, log: Path) -> None:
        self.recipe, self.base, self.work, self.log = recipe, base, work, log
        self.files = list(context_files(ROOT, Ignored((ROOT / ".dockerignore").read_text(encoding="utf-8"))))
        self.globals: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}
        self.stage: Stage | None = None

    def run(self) -> Stage:
        """Carry out all instructions and the checks; the last stage."""
        self._prepare_base()
        steps = parse((ROOT / self.recipe.dockerfile).read_text(encoding="utf-8"))
        for number, step in enumerate(steps, start=1):
            with timed(f"{self.recipe.name} {number}/{len(steps)} {step}"):
                self.carry_out(step)
        if self.stage is None:
            raise RecipeError(f"{self.recipe.dockerfile} has no FROM")
        for check in self.recipe.checks:
            with timed(f"{self.recipe.name} check {check}"):
                self._in(self.stage, ["/bin/sh", "-c", check], self.stage.environment)
        return self.stage

    def carry_out(self, step: Instruction) -> None:
        """Carry out one instruction."""
        if step.name == "FROM":
            self._from(step)
        elif self.stage is None:
            self._argument(step, self.globals)
        elif step.name == "ARG":
            self._argument(step, self.stage.arguments)
        elif step.name == "ENV":
            self.stage.environment.update(step.pairs(self.stage.variables))
        elif step.name == "COPY":
            self._copy(step, self.stage)
        elif step.name == "RUN":
            command = step.words({}) if step.text.startswith("[") else ["/bin/sh", "-c", step.text]
            self._in(self.stage, command, self.stage.variables)
        elif step.name == "WORKDIR":
            self.stage.folder = Path(self.stage.folder, *step.words(self.stage.variables)).as_posix()
            self.stage.path(".").mkdir(parents=True, exist_ok=True)
        elif step.name == "USER":
            self.stage.user = step.words(self.stage.variables)[0]
        else:
            self.stage.entrypoint = step.words({})

    def _in(self, stage: Stage, command: Sequence[str], environment: Mapping[str, str]) -> None:
        run_in_root(stage.root, command, self.log, environment=environment, user=stage.user, folder=stage.folder)

    def _prepare_base(self) -> None:
        """Give the stand-in what the recipe's base image has."""
        if not self.recipe.base_has:
            return
        root = self.work / "base"
        run_logged(["cp", "-a", str(self.base), str(root)], self.log, cwd=self.work)
        carry_machine(root)
        stage = Stage(root, self._base_environment)
        for number, command in enumerate(self.recipe.base_has, start=1):
            with timed(f"{self.recipe.name} base {number}/{len(self.recipe.base_has)} {command}"):
                self._in(stage, ["/bin/sh", "-ec", command], stage.environment)
        self.base = root

    @property
    def _base_environment(self) -> dict[str, str]:
        return {"PATH": PATH, **self.recipe.base_environment}

    def _from(self, step: Instruction) -> None:
        """Start a stage from an earlier one or from the stand-in for its base image."""
        image, *alias = step.words(self.globals)
        root = self.work / f"stage{len(self.stages)}"
        earlier = self.stages.get(image)
        run_logged(["cp", "-a", str(earlier.root if earlier else self.base), str(root)], self.log, cwd=self.work)
        carry_machine(root)
        self.stage = Stage(root, dict(earlier.environment) if earlier else self._base_environment)
        self.stages[alias[1] if len(alias) == 2 else str(len(self.stages))] = self.stage

    def _argument(self, step: Instruction, held: dict[str, str]) -> None:
        if step.name != "ARG":
            raise RecipeError(f"line {step.line}: {step.name} before the first FROM")
        name, equals, default = step.text.partition("=")
        value = (
            expand(default.strip("\"'"), {**self.globals, **held}, step.line) if equals else self.globals.get(name, "")
        )
        held[name] = self.recipe.arguments.get(name, value)

    def _copy(self, step: Instruction, stage: Stage) -> None:
        *sources, target = step.words(stage.variables)
        place = stage.path(target)
        into = target.endswith("/") or len(sources) > 1 or place.is_dir()
        owner = find_user(stage.root, step.flags.get("chown", "0"))[0]
        for source in sources:
            for path, name in self._found(step, source):
                end = (place / (name or path.name)) if into or name else place
                put(path, end, owner)

    def _found(self, step: Instruction, source: str) -> Iterator[tuple[Path, str]]:
        """What a COPY's `source` stands for: (file or folder, its place below the target; "" for a single file)."""
        earlier, name = step.flags.get("from"), posixpath.normpath(source)
        if earlier in self.stages:
            top = self.stages[earlier].root / name.lstrip("/")
            found = [(path, path.name) for path in sorted(top.iterdir())] if top.is_dir() else [(top, "")]
        else:
            found = [(ROOT / path, path[len(name) + 1 :]) for path in self.files if f"{path}/".startswith(f"{name}/")]
        if not found or earlier not in (None, *self.stages):
            where = f"stage {earlier}" if earlier else "build context that .dockerignore leaves"
            raise RecipeError(f"line {step.line}: there is no {source} in the {where}")
        yield from found


def put(source: Path, target: Path, owner: str) -> None:
    """Copy a file, a link or a whole folder to `target`, for `owner` (uid:gid)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    for command in (["cp", "-dRT", "--preserve=mode,timestamps", source], ["chown", "-hR", owner]):
        subprocess.run([*command, target], check=True)


def timed(what: str) -> AbstractContextManager[None]:
    """A step on one line, whatever the length of the instruction."""
    return show_step(textwrap.shorten(what, SHOWN, placeholder=" ..."), "recipes")


def try_recipe(recipe: Recipe, *, keep: bool) -> None:
    """Build and check one recipe; raises RecipeError or StepError at the first thing that fails."""
    base, log = FOLDER / "base", FOLDER / f"{recipe.name}.log"
    FOLDER.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    if not base.is_dir():
        with timed("making a bare Debian 12 with debootstrap"):
            make_base(base, log)
    work = Path(tempfile.mkdtemp(dir=FOLDER, prefix=f"{recipe.name}."))
    try:
        stage = Build(recipe, base, work, log).run()
        size = sum(path.lstat().st_size for path in stage.root.rglob("*") if path.is_file() and not path.is_symlink())
        print(f"{recipe.name}: works; {size / 1e6:,.0f} MB, runs {stage.entrypoint} as {stage.user}", flush=True)
    finally:
        if not keep:
            shutil.rmtree(work, ignore_errors=True)


def main(arguments: Sequence[str]) -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Carry out the Dockerfiles on a plain Debian, without Docker.")
    parser.add_argument("recipe", nargs="?", choices=(*RECIPES, "all"), default="all")
    parser.add_argument("--keep", action="store_true", help="leave the built roots in build/recipes")
    asked = parser.parse_args(arguments)
    reason = why_not_here()
    if reason:
        print(f"try_recipes: {reason}", file=sys.stderr)
        return CANNOT
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what is half done goes
    try:
        for name in RECIPES if asked.recipe == "all" else (asked.recipe,):
            try_recipe(RECIPES[name], keep=asked.keep)
    except (RecipeError, StepError) as exc:
        print(f"try_recipes: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
