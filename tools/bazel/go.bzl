"""Go packages of this repository.

    go_sources      the files of a package, with those of the packages it imports
    go_binary       a static program
    go_unit_test    the tests of a package, run in its folder
    go_test_binary  the tests of a package as a static program, to run elsewhere

`deps` names the packages of this repository that the files import. Modules are not named: go.mod and
go.sum are inputs of everything.
"""

load("@machine_go//:machine.bzl", "GO_ENV")
load(":actions.bzl", "GO_ACTION_ATTRS", "LOCAL", "bootstrap_action", "go_action")

GoSourcesInfo = provider(
    doc = "What it takes to compile a package.",
    fields = {"files": "depset of its files and those of what it imports"},
)

def _imported(deps):
    return [d[GoSourcesInfo].files for d in deps]

def _go_sources_impl(ctx):
    return [
        DefaultInfo(files = depset(ctx.files.srcs)),
        GoSourcesInfo(files = depset(ctx.files.srcs, transitive = _imported(ctx.attr.deps))),
    ]

_SOURCES_ATTRS = {
    "deps": attr.label_list(
        doc = "go_sources of the packages of this repository that srcs import.",
        providers = [GoSourcesInfo],
    ),
    "srcs": attr.label_list(
        doc = "The package's files, embedded ones too.",
        allow_files = True,
    ),
}

go_sources = rule(
    implementation = _go_sources_impl,
    doc = "The files of a package that are not tests. Compiled by what uses them.",
    attrs = _SOURCES_ATTRS,
)

def _go_binary_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    go_action(
        ctx,
        out = out,
        files = depset(ctx.files.srcs, transitive = _imported(ctx.attr.deps)),
        command = ["go", "build", "-trimpath", "-buildvcs=false", "-o", "{out}", "./" + ctx.label.package],
        mnemonic = "GoBuild",
    )
    return [
        DefaultInfo(files = depset([out]), executable = out),
        GoSourcesInfo(files = depset(ctx.files.srcs, transitive = _imported(ctx.attr.deps))),
    ]

go_binary = rule(
    implementation = _go_binary_impl,
    doc = "A static program, from the files of a package main.",
    attrs = dict(GO_ACTION_ATTRS, **_SOURCES_ATTRS),
    executable = True,
)

def _test_binary(ctx):
    """Builds the tests of a package, and returns the program."""
    out = ctx.actions.declare_file(ctx.label.name + ".test")
    go_action(
        ctx,
        out = out,
        files = depset(ctx.files.srcs, transitive = _imported(ctx.attr.deps)),
        command = ["go", "test", "-c", "-trimpath", "-buildvcs=false", "-o", "{out}", "./" + ctx.label.package],
        mnemonic = "GoTestBuild",
    )
    return out

def _go_test_binary_impl(ctx):
    out = _test_binary(ctx)
    return [DefaultInfo(files = depset([out]), executable = out)]

go_test_binary = rule(
    implementation = _go_test_binary_impl,
    doc = "The tests of a package as one static program. A package's own go_sources is one of deps.",
    attrs = dict(GO_ACTION_ATTRS, **_SOURCES_ATTRS),
    executable = True,
)

# The test is a script because Bazel gives a test no arguments but those of the command line.
_RUN_TESTS = """#!/bin/sh
exec {steps} test -name={name} -dir={dir} -binary={binary} -test2json={test2json} -files={files} {env} -- "$@"
"""

def _go_unit_test_impl(ctx):
    binary = _test_binary(ctx)
    data = depset(ctx.files.data)
    if ctx.attr.needs_go:
        data = depset(
            ctx.files.srcs + [ctx.file._go_mod, ctx.file._go_sum],
            transitive = [data] + _imported(ctx.attr.deps + ctx.attr.builds),
        )
    listing = ctx.actions.declare_file(ctx.label.name + ".files")
    entries = ctx.actions.args()
    entries.set_param_file_format("multiline")
    entries.add_all(data, map_each = _runfile_entry)
    ctx.actions.write(listing, entries)
    script = ctx.actions.declare_file(ctx.label.name)
    env = GO_ENV if ctx.attr.needs_go else {}
    ctx.actions.write(script, _RUN_TESTS.format(
        steps = ctx.executable._steps.short_path,
        name = _quoted("//%s:%s" % (ctx.label.package, ctx.label.name)),
        dir = _quoted(ctx.label.package),
        binary = binary.short_path,
        test2json = ctx.executable._test2json.short_path,
        files = listing.short_path,
        env = " ".join(["-env=" + _quoted(k + "=" + v) for k, v in env.items()]),
    ), is_executable = True)
    runfiles = ctx.runfiles(
        files = [binary, listing, ctx.executable._steps, ctx.executable._test2json],
        transitive_files = data,
    )
    return [
        DefaultInfo(executable = script, runfiles = runfiles),
        testing.ExecutionInfo(LOCAL),
    ]

def _runfile_entry(file):
    return file.short_path

def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"

go_unit_test = rule(
    implementation = _go_unit_test_impl,
    doc = """The tests of a package.

They run in a copy of data, in the package's folder, as `go test` would run them. Shards take turns at
the top-level tests.""",
    attrs = dict(
        GO_ACTION_ATTRS,
        data = attr.label_list(
            doc = "Files the tests read: each at its place in a copy of the repository.",
            allow_files = True,
        ),
        builds = attr.label_list(
            doc = "With needs_go, packages of this repository that the tests build and do not import.",
            providers = [GoSourcesInfo],
        ),
        needs_go = attr.bool(
            doc = "Whether the tests call the go command. They find it as the rules do, and beside data the sources.",
        ),
        _test2json = attr.label(
            default = "//tools/bazel:test2json",
            executable = True,
            cfg = "exec",
        ),
        **_SOURCES_ATTRS
    ),
    test = True,
)

def _go_bootstrap_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    bootstrap_action(ctx, out, ctx.files.srcs, ctx.attr.std)
    return [
        DefaultInfo(files = depset([out]), executable = out),
        GoSourcesInfo(files = depset(ctx.files.srcs)),
    ]

go_bootstrap = rule(
    implementation = _go_bootstrap_impl,
    doc = "A program that other rules need to work: from the standard library alone.",
    attrs = {
        "srcs": attr.label_list(allow_files = [".go"]),
        "std": attr.string(doc = "In the place of srcs: a program that comes with Go."),
        "_go_version": attr.label(default = "@machine_go//:VERSION", allow_single_file = True),
    },
    executable = True,
)
