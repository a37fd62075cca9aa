"""What the rules take from the machine: its Go toolchain, and Go's module and build caches.

WORKSPACE uses these repository rules as they are, MODULE.bazel by way of extension.bzl.
"""

# Settings of the go command that its cache and its way to modules depend on. The actions get these,
# and no others that a user may have made (GOENV, GOFLAGS).
_KEPT = [
    "GOCACHE",
    "GOINSECURE",
    "GOMODCACHE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPATH",
    "GOPRIVATE",
    "GOPROXY",
    "GOROOT",
    "GOSUMDB",
]

def _numbers(version):
    """Compares as versions do: 1.26.3 is (1, 26, 3), 1.27rc1 is (1, 27, -1)."""
    parts = []
    for part in version.split("."):
        digits = ""
        for c in part.elems():
            if not c.isdigit():
                break
            digits += c
        parts.append(int(digits or "0"))
        if digits != part:
            # A release candidate comes before its release.
            return parts + [-1] if part[len(digits):].startswith("rc") else parts
    return parts + [0] * (3 - len(parts))

def _wanted(repository_ctx):
    for line in repository_ctx.read(repository_ctx.path(Label("//:go.mod"))).splitlines():
        if line.startswith("go "):
            return line[len("go "):].strip()
    fail("go.mod has no line that says which Go it wants")

def _machine_go_impl(repository_ctx):
    wanted = _wanted(repository_ctx)
    go = repository_ctx.which("go")
    if not go:
        fail("no go command on the PATH: install Go %s or newer, https://go.dev/dl" % wanted)
    asked = repository_ctx.execute([go, "env", "GOVERSION"] + _KEPT, environment = {"GOTOOLCHAIN": "local"})
    if asked.return_code != 0:
        fail("%s env: %s" % (go, asked.stderr.strip()))
    answers = asked.stdout.split("\n")

    # A toolchain of someone's own has more after a dash or a space.
    have = answers[0].replace("-", " ").split(" ")[0]
    if not have.startswith("go") or _numbers(have[len("go"):]) < _numbers(wanted):
        fail("%s is %s, too old: install Go %s or newer, https://go.dev/dl" % (go, answers[0] or "of no known version", wanted))

    env = {name: answers[1 + i] for i, name in enumerate(_KEPT)}
    env["CGO_ENABLED"] = "0"
    env["GOENV"] = "off"
    env["GOTOOLCHAIN"] = "local"
    env["GOWORK"] = "off"
    env["HOME"] = repository_ctx.os.environ.get("HOME", "/")
    env["PATH"] = "%s:/usr/bin:/bin" % go.dirname

    # An input of every action: another Go makes all of them run again.
    repository_ctx.symlink(env["GOROOT"] + "/VERSION", "VERSION")
    repository_ctx.file("BUILD.bazel", "exports_files([\"VERSION\"])\n")
    repository_ctx.file("machine.bzl", "GO = %r\n\nGO_ENV = %r\n" % (str(go), env))

machine_go = repository_rule(
    implementation = _machine_go_impl,
    doc = "The go command on the PATH, if it suits go.mod, and the settings to call it with.",
    configure = True,
    local = True,
    environ = ["HOME", "PATH"] + _KEPT,
)

def _no_coverage_impl(repository_ctx):
    repository_ctx.file("BUILD.bazel", """filegroup(
    name = "coverage_report_generator",
    visibility = ["//visibility:public"],
)
""")

no_coverage = repository_rule(
    implementation = _no_coverage_impl,
    doc = """Stands for Bazel's remote_coverage_tools, which it would download.

Bazel before 6 wants them for any test rule, measured or not.""",
)
