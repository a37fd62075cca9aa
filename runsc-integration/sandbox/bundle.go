package sandbox

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// rootCapabilities are what a program started by root may need: what Docker gives a container, mounts,
// which the tests of mapped file systems make inside the sandbox, and priorities and memory policies of
// other processes.
var rootCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_KILL",
	"CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_ADMIN",
	"CAP_SYS_CHROOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE",
}

// A Bundle describes a container. It gets /proc, /sys, /dev and a tmpfs at /dev/shm besides what is
// said here.
type Bundle struct {
	Root     string   // the folder that is its root file system
	Args     []string // the program, by its path inside, and its arguments
	Env      []string // NAME=VALUE; nothing of our own environment goes along
	Dir      string   // the working directory inside
	Terminal bool     // standard input and output are a terminal
	Mounts   []Mount  // made in this order, after those that every container has
}

// A Mount is a file system in a container.
type Mount struct {
	Destination string   `json:"destination"` // an absolute path inside
	Type        string   `json:"type"`        // bind, tmpfs, proc, ...
	Source      string   `json:"source"`      // for bind: an absolute path of this machine
	Options     []string `json:"options,omitempty"`
}

// Program is a container with one static program for everything: it is all that its root holds.
func Program(root, program string, args ...string) Bundle {
	return Bundle{
		Root: root,
		Args: append([]string{"/" + filepath.Base(program)}, args...),
		Env:  []string{"PATH=/"},
		Dir:  "/",
	}
}

// Machine is a container that sees this machine's files, and writes to a copy in memory. It works in
// dir; args[0] is an absolute path.
func Machine(dir string, args ...string) Bundle {
	return Bundle{Root: "/", Args: args, Env: os.Environ(), Dir: dir}
}

// write makes config.json in folder, which then is an OCI bundle.
func (b Bundle) write(folder string) error {
	limit := syscall.Rlimit{Cur: 1024, Max: 1024}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("getrlimit: %w", err)
	}
	capabilities := map[string][]string{}
	for _, set := range []string{"bounding", "effective", "permitted"} {
		capabilities[set] = rootCapabilities
	}
	spec := ociSpec{
		Version: "1.0.2",
		Process: ociProcess{
			Terminal:     b.Terminal,
			Args:         b.Args,
			Env:          b.Env,
			Cwd:          b.Dir,
			Capabilities: capabilities,
			Rlimits:      []ociRlimit{{Type: "RLIMIT_NOFILE", Hard: limit.Max, Soft: limit.Cur}},
		},
		Root:     ociRoot{Path: b.Root},
		Hostname: "sentrymm",
		Mounts: []Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs"},
		},
	}
	spec.Mounts = append(spec.Mounts, b.Mounts...)
	for _, namespace := range []string{"pid", "network", "ipc", "uts", "mount"} {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, ociNamespace{namespace})
	}
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	return NoSpace(os.WriteFile(filepath.Join(folder, "config.json"), data, 0o644), folder)
}

// WithEnv sets a variable of the container.
func (b Bundle) WithEnv(name, value string) Bundle {
	env := []string{name + "=" + value}
	for _, v := range b.Env {
		if !strings.HasPrefix(v, name+"=") {
			env = append(env, v)
		}
	}
	b.Env = env
	return b
}
