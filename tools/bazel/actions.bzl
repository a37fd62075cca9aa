"""How the go command is run: in a folder that holds copies of the declared files and nothing else.

So what a target does not declare cannot be compiled, sandbox or not. The go command itself is the
machine's, and so are its caches, which Bazel's sandbox would not let it write.
"""

load("@machine_go//:machine.bzl", "GO", "GO_ENV")

# On this machine, with its caches, in no sandbox.
LOCAL = {
    "local": "1",
    "no-remote": "1",
    "no-sandbox": "1",
}

# What a rule needs to call go_action.
GO_ACTION_ATTRS = {
    "_go_mod": attr.label(default = "//:go.mod", allow_single_file = True),
    "_go_sum": attr.label(default = "//:go.sum", allow_single_file = True),
    "_go_version": attr.label(default = "@machine_go//:VERSION", allow_single_file = True),
    "_steps": attr.label(default = "//tools/bazel/steps", executable = True, cfg = "exec"),
}

def tree_entry(file):
    """Where a file belongs in a copy of the repository, and where it is."""
    return file.short_path + "=" + file.path

def go_action(ctx, out, files, command, mnemonic):
    """Runs a command in a private copy of the files, to make one file.

    Args:
      ctx: of a rule with GO_ACTION_ATTRS.
      out: the file to make; {out} in the command stands for its path.
      files: depset of what the command may see. go.mod and go.sum come on top.
      command: list of strings, or files for programs to run.
      mnemonic: names the action in what Bazel prints.
    """
    tree = depset([ctx.file._go_mod, ctx.file._go_sum], transitive = [files])
    entries = ctx.actions.args()
    entries.set_param_file_format("multiline")
    entries.use_param_file("-files=%s", use_always = True)
    entries.add_all(tree, map_each = tree_entry)
    what = ctx.actions.args()
    what.add("-out", out)
    what.add("--")
    what.add_all(command)
    ctx.actions.run(
        outputs = [out],
        inputs = depset(
            [ctx.file._go_version] + [c for c in command if type(c) == "File"],
            transitive = [tree],
        ),
        executable = ctx.executable._steps,
        arguments = ["build", entries, what],
        env = GO_ENV,
        execution_requirements = LOCAL,
        mnemonic = mnemonic,
        progress_message = "%s %s" % (mnemonic, ctx.label),
    )

def bootstrap_action(ctx, out, files, package):
    """Builds a program of the standard library's packages only: what go_action itself needs.

    Args:
      ctx: of a rule with the attribute _go_version.
      out: the program.
      files: list of its files, or of nothing.
      package: what to build in the place of files, if there are none.
    """
    args = ctx.actions.args()
    args.add_all(["build", "-trimpath", "-buildvcs=false", "-o", out])
    args.add_all(files or [package])
    ctx.actions.run(
        outputs = [out],
        inputs = files + [ctx.file._go_version],
        executable = GO,
        arguments = [args],
        # No module is around it: go.mod is not among the inputs.
        env = dict(GO_ENV, GO111MODULE = "off"),
        execution_requirements = LOCAL,
        mnemonic = "GoBootstrap",
        progress_message = "GoBootstrap %s" % ctx.label,
    )
