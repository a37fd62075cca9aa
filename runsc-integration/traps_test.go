package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"sentrymm/runsc-integration/sandbox"
)

// trapResult is what a test in a container says at its end: how it went, and its name.
var trapResult = regexp.MustCompile(`(?m)^--- (\w+): Test(\w+) `)

// TestTraps runs the tests of package traps in containers, on every kind of file system that the sentry
// has: its root on the gofer, or as an overlay over it; a bind mount, which may change from outside; and
// its tmpfs.
func TestTraps(t *testing.T) {
	p, runsc := needRunsc(t)
	root := t.TempDir()
	require.NoError(t, p.buildStaticTest(t.Context(), filepath.Join(root, "traps.test"), "./runsc-integration/traps"))
	for _, dir := range []string{"bind", "tmp", "work"} {
		require.NoError(t, os.Mkdir(filepath.Join(root, dir), 0o777))
	}
	b := sandbox.Program(root, "traps.test", "-test.v").
		WithEnv("TRAPS_MANDATORY", "yes").
		WithEnv("TRAPS_DIRS", "root=/work bind=/bind tmpfs=/dev/shm")
	b.Mounts = []sandbox.Mount{{Destination: "/bind", Type: "bind", Source: t.TempDir(), Options: []string{"rw"}}}

	for _, platform := range platforms() {
		for name, overlay := range map[string]string{"gofer": "none", "overlay": "root:memory"} {
			t.Run(platform+"/"+name, func(t *testing.T) {
				s := openSandbox(t, p, runsc, platform, "--overlay2="+overlay)
				got := inside(t, s, b)
				results := trapResult.FindAllStringSubmatch(got.stdout, -1)
				require.NotEmpty(t, results, "%+v", got)
				for _, r := range results {
					t.Run(r[2], func(t *testing.T) {
						require.Equal(t, "PASS", r[1])
					})
				}
				if t.Failed() || got.status != 0 || !strings.HasSuffix(got.stdout, "\nPASS\n") {
					t.Errorf("exit status %d inside:\n%s%s", got.status, got.stdout, got.stderr)
				}
			})
		}
	}
}
