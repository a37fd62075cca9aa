"""runsc with this repository's memory manager, as a target."""

load(":actions.bzl", "GO_ACTION_ATTRS", "go_action")
load(":go.bzl", "GoSourcesInfo")

def _runsc_binary_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    command = [ctx.executable._builder, "build", "-o", "{out}"]
    if ctx.attr.tags_of_go:
        command.append("-tags=" + ",".join(ctx.attr.tags_of_go))
    if not ctx.attr.mm:
        command.append("-stock")
    go_action(
        ctx,
        out = out,
        files = ctx.attr.mm[GoSourcesInfo].files if ctx.attr.mm else depset(),
        command = command,
        mnemonic = "Runsc",
    )
    return [DefaultInfo(files = depset([out]), executable = out)]

runsc_binary = rule(
    implementation = _runsc_binary_impl,
    doc = "A static runsc, built by runsc-integration from gVisor's module in the module cache.",
    attrs = dict(
        GO_ACTION_ATTRS,
        mm = attr.label(
            doc = "go_sources of the memory manager to put in place of gVisor's. Without one: gVisor's own runsc.",
            providers = [GoSourcesInfo],
        ),
        tags_of_go = attr.string_list(doc = "Build tags of the go command."),
        _builder = attr.label(
            default = "//runsc-integration",
            executable = True,
            cfg = "exec",
        ),
    ),
    executable = True,
)
