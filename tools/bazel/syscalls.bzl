"""Suites of test/syscalls as tests: natively, and under runsc on each platform."""

load(":actions.bzl", "LOCAL")
load(":go.bzl", "go_test_binary")

# One suite on one target. The runner works out what differs from a run without a sandbox, takes its turn at
# the suite's tests where there are shards, and writes the results for Bazel.
_RUN_SUITE = """#!/bin/sh
exec {runner} -suites {suite} -targets {target} -bin {suite}={binary} -test2json {test2json} \\
  {sandbox} ${{XML_OUTPUT_FILE:+-junit "$XML_OUTPUT_FILE"}} ${{TEST_TIMEOUT:+-timeout $((TEST_TIMEOUT * 9 / 10))s}} "$@"
"""

def _suite_run_test_impl(ctx):
    files = [ctx.executable.suite, ctx.executable._runner, ctx.executable._test2json]
    sandbox = ""
    if ctx.attr.target != "native":
        # None of these changes what the suite does natively.
        files += [ctx.executable.runsc, ctx.executable.guest, ctx.file._known]
        sandbox = "-runsc %s -guest %s -known %s" % (
            ctx.executable.runsc.short_path,
            ctx.executable.guest.short_path,
            ctx.file._known.short_path,
        )
    script = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(script, _RUN_SUITE.format(
        runner = ctx.executable._runner.short_path,
        suite = ctx.attr.suite_name,
        target = ctx.attr.target,
        binary = ctx.executable.suite.short_path,
        test2json = ctx.executable._test2json.short_path,
        sandbox = sandbox,
    ), is_executable = True)
    return [
        DefaultInfo(executable = script, runfiles = ctx.runfiles(files = files)),
        testing.ExecutionInfo(LOCAL),
    ]

_suite_run_test = rule(
    implementation = _suite_run_test_impl,
    attrs = {
        "guest": attr.label(executable = True, cfg = "target"),
        "runsc": attr.label(executable = True, cfg = "target"),
        "suite": attr.label(executable = True, cfg = "target", mandatory = True),
        "suite_name": attr.string(mandatory = True),
        "target": attr.string(mandatory = True, values = ["native", "systrap", "ptrace", "kvm"]),
        "_known": attr.label(default = "//test/syscalls:known.json", allow_single_file = True),
        "_runner": attr.label(default = "//test/syscalls/runner", executable = True, cfg = "exec"),
        "_test2json": attr.label(default = "//tools/bazel:test2json", executable = True, cfg = "exec"),
    },
    test = True,
)

def syscall_test(name, srcs, deps = [], size = "medium", shard_count = None, tags = []):
    """Declares the tests of one suite, a package of Go tests below test/syscalls.

    NAME_native            the suite as it is, on this machine's kernel
    NAME_runsc_systrap     in a container, compared with the machine
    NAME_runsc_ptrace      the same on another platform
    NAME_runsc_kvm         the same, tagged manual: few machines can

    Args:
      name: of the suite; its folder is called the same.
      srcs: the suite's files.
      deps: go_sources of the packages of this repository that they import.
      size: how long it may take, as for any test.
      shard_count: into how many runs its top-level tests are divided.
      tags: more tags for all of them.
    """
    suite = name + "_suite"
    go_test_binary(
        name = suite,
        testonly = True,
        srcs = srcs,
        deps = deps,
    )
    for target in ["native", "systrap", "ptrace", "kvm"]:
        native_run = target == "native"
        _suite_run_test(
            name = name + ("_native" if native_run else "_runsc_" + target),
            size = size,
            guest = None if native_run else "//runsc-integration/guest",
            runsc = None if native_run else "//runsc-integration:runsc",
            shard_count = shard_count,
            suite = suite,
            suite_name = name,
            tags = tags + ([] if native_run else ["requires-root"]) + (["manual"] if target == "kvm" else []),
            target = target,
        )
