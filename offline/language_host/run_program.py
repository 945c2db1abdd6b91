"""Runs one Pulumi program, hooked up to the engine that asked for it. Started by the language host only.

Exit 32: the engine has been told what was wrong, nothing more need be said.
"""

import argparse
import asyncio
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

import pulumi
import pulumi.runtime

SAID = 32
THREADS_PER_OPERATION = 4


def main() -> int:
    parser = argparse.ArgumentParser()
    for name in ("monitor", "engine", "project", "stack", "organization", "pwd", "root-directory", "parallel"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("program")
    given = parser.parse_args()
    pulumi.runtime.set_all_config(pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env())
    parallel = int(given.parallel or 0)
    pulumi.runtime.configure(
        pulumi.runtime.Settings(
            monitor=given.monitor,
            engine=given.engine,
            project=given.project,
            stack=given.stack,
            organization=given.organization,
            root_directory=given.root_directory,
            parallel=parallel,
            dry_run=given.dry_run,
        )
    )
    os.chdir(given.pwd)
    sys.argv = [given.program]
    # The folder of this file would otherwise shadow the program's modules.
    sys.path[0] = given.program
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(max_workers=max(parallel, 1) * THREADS_PER_OPERATION)
    loop.set_default_executor(executor)
    # A program that stops half-way leaves futures unread; that is no news to anybody.
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(lambda: _run(given.program)))
        return 0
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return SAID
    except Exception:
        pulumi.log.error(f"the program failed:\n{traceback.format_exc()}")
        return SAID
    finally:
        executor.shutdown(wait=True)
        loop.close()
        sys.stdout.flush()
        sys.stderr.flush()


def _run(program: str) -> None:
    runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    sys.exit(main())
