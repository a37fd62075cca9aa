package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sentrymm/runsc-integration/sandbox"
)

// writeModFile writes the second mod file, the one `go build -modfile` uses in place of go.mod, and
// the sums beside it. The module in it is still this one, so the staged memory manager finds
// pkg/vmatree. Everything else is as gVisor's own go.mod has it: both runscs are built with the
// libraries that gVisor was tested with, not with the newer ones this repository uses elsewhere, and
// their sums come with gVisor, whose own sum stands in go.sum.
//
// replace is the folder of the staged module, relative to this one's, or empty to take the one in the module
// cache.
func (p *project) writeModFile(ctx context.Context, file string, gvisor module, replace string) error {
	theirs, err := readMod(ctx, gvisor.GoMod)
	if err != nil {
		return err
	}
	var mod bytes.Buffer
	fmt.Fprintf(&mod, "// Made by runsc-integration.\nmodule %s\n\ngo %s\n\nrequire (\n", p.mod.Module.Path, theirs.Go)
	fmt.Fprintf(&mod, "\t%s %s\n", gvisorPath, gvisor.Version)
	for _, r := range theirs.Require {
		fmt.Fprintf(&mod, "\t%s %s\n", r.Path, r.Version)
	}
	fmt.Fprintf(&mod, ")\n")
	if replace != "" {
		fmt.Fprintf(&mod, "\nreplace %s => %q\n", gvisorPath, replace)
	}

	ours, err := os.ReadFile(filepath.Join(p.root, "go.sum"))
	if err != nil {
		return err
	}
	var sums bytes.Buffer
	for line := range strings.Lines(string(ours)) {
		if strings.HasPrefix(line, gvisorPath+" ") {
			sums.WriteString(line)
		}
	}
	more, err := os.ReadFile(filepath.Join(gvisor.Dir, "go.sum"))
	if err != nil {
		return err
	}
	sums.Write(more)

	if err := writeIfNew(file, mod.Bytes()); err != nil {
		return err
	}
	return writeIfNew(strings.TrimSuffix(file, ".mod")+".sum", sums.Bytes())
}

// writeIfNew writes a file, whole or not at all.
func writeIfNew(file string, data []byte) error {
	if old, err := os.ReadFile(file); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.WriteFile(file+".new", data, 0o644); err != nil {
		return sandbox.NoSpace(err, filepath.Dir(file))
	}
	return os.Rename(file+".new", file)
}
