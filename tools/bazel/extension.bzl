"""What MODULE.bazel has in the place of WORKSPACE's calls. Bazel 4 knows no extensions and does not load this."""

load(":machine.bzl", "machine_go")

def _machine_impl(_module_ctx):
    machine_go(name = "machine_go")

machine = module_extension(implementation = _machine_impl)
