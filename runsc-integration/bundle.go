package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// The part of the OCI runtime specification's config.json that is used here.
type (
	ociSpec struct {
		Version  string     `json:"ociVersion"`
		Process  ociProcess `json:"process"`
		Root     ociRoot    `json:"root"`
		Hostname string     `json:"hostname"`
		Mounts   []ociMount `json:"mounts"`
		Linux    ociLinux   `json:"linux"`
	}
	ociProcess struct {
		Terminal bool     `json:"terminal"`
		User     ociUser  `json:"user"`
		Args     []string `json:"args"`
		Env      []string `json:"env"`
		Cwd      string   `json:"cwd"`
		// The capabilities of the process, by set.
		Capabilities map[string][]string `json:"capabilities"`
		Rlimits      []ociRlimit         `json:"rlimits"`
	}
	ociUser struct {
		UID uint32 `json:"uid"`
		GID uint32 `json:"gid"`
	}
	ociRlimit struct {
		Type string `json:"type"`
		Hard uint64 `json:"hard"`
		Soft uint64 `json:"soft"`
	}
	ociRoot struct {
		Path     string `json:"path"`
		Readonly bool   `json:"readonly"`
	}
	ociMount struct {
		Destination string   `json:"destination"`
		Type        string   `json:"type"`
		Source      string   `json:"source"`
		Options     []string `json:"options,omitempty"`
	}
	ociLinux struct {
		Namespaces []ociNamespace `json:"namespaces"`
	}
	ociNamespace struct {
		Type string `json:"type"`
	}
)

// rootCapabilities are what a program started by root may need: what Docker gives a container, and
// mounts, which the tests of mapped file systems make inside the sandbox.
var rootCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_IPC_LOCK", "CAP_KILL",
	"CAP_MKNOD", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_ADMIN",
	"CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE",
}

// A bundle describes a container.
type bundle struct {
	root     string // its root file system
	args     []string
	env      []string
	dir      string // the working directory inside
	terminal bool   // standard input and output are a terminal
	mounts   []ociMount
}

// guestBundle is a container with one static program for everything: it is all its root holds.
func guestBundle(root, program string, args ...string) bundle {
	return bundle{
		root: root,
		args: append([]string{"/" + filepath.Base(program)}, args...),
		env:  []string{"PATH=/"},
		dir:  "/",
	}
}

// machineBundle is a container that sees this machine's files, and writes to a copy in memory.
func machineBundle(dir string, args ...string) bundle {
	return bundle{root: "/", args: args, env: os.Environ(), dir: dir}
}

// write makes config.json in folder, which then is an OCI bundle.
func (b bundle) write(folder string) error {
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
			Terminal:     b.terminal,
			Args:         b.args,
			Env:          b.env,
			Cwd:          b.dir,
			Capabilities: capabilities,
			Rlimits:      []ociRlimit{{Type: "RLIMIT_NOFILE", Hard: limit.Max, Soft: limit.Cur}},
		},
		Root:     ociRoot{Path: b.root},
		Hostname: "sentrymm",
		Mounts: []ociMount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "tmpfs"},
		},
	}
	spec.Mounts = append(spec.Mounts, b.mounts...)
	for _, namespace := range []string{"pid", "network", "ipc", "uts", "mount"} {
		spec.Linux.Namespaces = append(spec.Linux.Namespaces, ociNamespace{namespace})
	}
	data, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		return err
	}
	return noSpace(os.WriteFile(filepath.Join(folder, "config.json"), data, 0o644), folder)
}

// withEnv sets a variable of the container.
func (b bundle) withEnv(name, value string) bundle {
	env := []string{name + "=" + value}
	for _, v := range b.env {
		if !strings.HasPrefix(v, name+"=") {
			env = append(env, v)
		}
	}
	b.env = env
	return b
}
