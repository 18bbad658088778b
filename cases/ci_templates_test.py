#!/usr/bin/env python3
"""The sharded templates of ci/templates, as far as they can be run without GitHub and GitLab: they are YAML of
the form that each expects, and their commands run in a shell, shard after shard, then the merge.

usage: cases/ci_templates_test.py BUILD [FILTER]   (BUILD: a build tree with the matrix built)
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEMPLATES = ROOT / "ci" / "templates"
N_SHARDS = 2


def load(name: str) -> dict:
    return yaml.safe_load((TEMPLATES / name).read_text())


def check_all_parse() -> None:
    """Keys that the services know, where a wrong one is ignored or refuses the file."""
    job_keys = {"runs-on", "timeout-minutes", "strategy", "env", "steps", "needs", "if"}
    for path in sorted(TEMPLATES.glob("github-*.yml")):
        workflow = load(path.name)
        assert True in workflow, "the key on, which YAML 1.1 reads as true"
        for name, job in workflow["jobs"].items():
            assert not set(job) - job_keys, (path.name, name, set(job) - job_keys)
            for step in job["steps"]:
                assert ("run" in step) != ("uses" in step), (path.name, step)
                assert not set(step) - {"name", "run", "uses", "with", "if"}, (path.name, step)
                if "uses" in step:
                    assert len(step["uses"].split("@")[1]) == 40, "an action is pinned by its commit"
    script_keys = {"stage", "image", "timeout", "parallel", "variables", "cache", "before_script", "script",
                   "after_script", "artifacts", "when", "needs"}
    for path in sorted(TEMPLATES.glob("gitlab-*.yml")):
        for name, job in load(path.name).items():
            if name not in ("variables", "stages"):
                assert not set(job) - script_keys, (path.name, name, set(job) - script_keys)


def shell(script: str, folder: pathlib.Path, fails: bool = False, **env: str) -> str:
    done = subprocess.run(["bash", "-e", "-o", "pipefail", "-c", script], cwd=folder, env={**os.environ, **env},
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert (done.returncode != 0) == fails, f"exit code {done.returncode}:\n{script}\n{done.stdout[-3000:]}"
    return done.stdout


def scratch(build: pathlib.Path) -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="refparity-templates-"))
    (folder / "build").symlink_to(build)
    shutil.rmtree(build / "reports" / "shards", ignore_errors=True)
    return folder


def expect_merged(folder: pathlib.Path, wanted: set[str]) -> None:
    results = json.loads((folder / "reports" / "results.json").read_text())
    names = [pair["pair"] for pair in results["pairs"]]
    assert sorted(names) == sorted(wanted), (names, wanted)
    assert results["summary"]["passed"] == len(wanted), results["summary"]
    assert len(results["shards"]) == N_SHARDS, results["shards"]


def run_github(build: pathlib.Path, filter_: str, wanted: set[str]) -> None:
    jobs = load("github-actions-shards.yml")["jobs"]
    run = {step.get("name"): step.get("run") for job in jobs.values() for step in job["steps"]}
    folder = scratch(build)
    for shard in range(1, N_SHARDS + 1):
        shell(run["Parity"], folder, REFPARITY_FILTER=filter_, REFPARITY_SHARD=f"{shard}/{N_SHARDS}")
        artifact = folder / "shards" / f"parity-shard-{shard}"  # as download-artifact lays them out
        shutil.copytree(build / "reports" / "shards" / f"{shard}-of-{N_SHARDS}", artifact / "shards" / str(shard))
        shutil.copyfile(build / "reports" / "refparity-tool", artifact / "refparity-tool")  # without its mode
    summary = folder / "summary.md"
    env = {"REFPARITY_FILTER": filter_, "GITHUB_STEP_SUMMARY": str(summary)}
    shell(run["Merge"], folder, **env)
    expect_merged(folder, wanted)
    assert f"{len(wanted)} passed" in summary.read_text(), summary.read_text()
    shutil.rmtree(folder / "shards" / "parity-shard-2")
    shell(run["Merge"], folder, fails=True, **env)
    assert "no shard has it" in summary.read_text()
    shutil.rmtree(folder)


def run_gitlab(build: pathlib.Path, filter_: str, wanted: set[str]) -> None:
    template = load("gitlab-ci-shards.yml")
    folder = scratch(build)
    for shard in range(1, N_SHARDS + 1):
        shell("\n".join(template["parity"]["script"]), folder, REFPARITY_FILTER=filter_,
              REFPARITY_SHARD=f"{shard}/{N_SHARDS}")
    shell("\n".join(template["parity report"]["script"]), folder, REFPARITY_FILTER=filter_)
    expect_merged(folder, wanted)
    shutil.rmtree(folder)


def main() -> None:
    build = pathlib.Path(sys.argv[1]).resolve()
    filter_ = sys.argv[2] if len(sys.argv) > 2 else "^tiny-llama-q8_0/per-token/p[0-2]"
    tool = build / "bin" / "refparity"
    names = subprocess.run([tool, "shard", "--names", "--filter", filter_, "1/1", build], check=True,
                           stdout=subprocess.PIPE, text=True).stdout.split()
    assert len(names) > N_SHARDS, names
    check_all_parse()
    run_github(build, filter_, set(names))
    run_gitlab(build, filter_, set(names))
    print(f"{len(names)} pairs in {N_SHARDS} shards, by GitHub's commands and by GitLab's")


if __name__ == "__main__":
    main()
