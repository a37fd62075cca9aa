// mbind, get_mempolicy and set_mempolicy; process_madvise.
package matrix

import (
	"testing"

	"golang.org/x/sys/unix"
)

// nodes puts a mask of memory nodes into scratch and returns its address.
func (s *scene) nodes(mask uint64) uintptr {
	*(*uint64)(at(s.scratch)) = mask
	return s.scratch
}

// needsPolicies skips a test where the kernel has no memory policies.
func needsPolicies(t *testing.T) {
	t.Helper()
	if r := call(unix.SYS_SET_MEMPOLICY, unix.MPOL_DEFAULT, 0, 0); r.Errno == unix.ENOSYS {
		t.Skip("no memory policies: the kernel was built without CONFIG_NUMA")
	}
}

func TestMbind(t *testing.T) {
	needsPolicies(t)
	s := newScene(t)
	for _, c := range []struct {
		name        string
		mode        uintptr
		mask        uint64
		bits, flags uintptr
	}{
		{"default", unix.MPOL_DEFAULT, 0, 0, 0},
		{"default-with-nodes", unix.MPOL_DEFAULT, 1, 64, 0},
		{"preferred", unix.MPOL_PREFERRED, 1, 64, 0},
		{"bind", unix.MPOL_BIND, 1, 64, 0},
		{"bind-nowhere", unix.MPOL_BIND, 0, 64, 0},
		{"bind-no-such-node", unix.MPOL_BIND, 1 << 40, 64, 0},
		{"interleave", unix.MPOL_INTERLEAVE, 1, 64, 0},
		{"local", unix.MPOL_LOCAL, 0, 0, 0},
		{"strict", unix.MPOL_DEFAULT, 0, 0, unix.MPOL_MF_STRICT},
		{"unknown-mode", 99, 1, 64, 0},
		{"unknown-flag", unix.MPOL_DEFAULT, 0, 0, 1 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := form{nr: unix.SYS_MBIND, quiet: true, args: func(s *scene, addr, n uintptr) []uintptr {
				return []uintptr{addr, n, c.mode, s.nodes(c.mask), c.bits, c.flags}
			}}
			// Where nothing stops it, a policy is for all that is mapped: no valid range may leave the arena.
			s.overPlaces(t, f, adviceLengths)
		})
	}
}

func TestGetMempolicy(t *testing.T) {
	needsPolicies(t)
	s := newScene(t)
	const node, address, allowed = unix.MPOL_F_NODE, unix.MPOL_F_ADDR, unix.MPOL_F_MEMS_ALLOWED
	for name, flags := range map[string]uintptr{"address": address, "node-of-address": node | address, "address-without-flag": 0} {
		s.single(t, name, unix.SYS_GET_MEMPOLICY, places, func(s *scene, addr uintptr) []uintptr {
			return []uintptr{s.data(), s.nodes(0), 1024, addr, flags}
		})
	}
	s.single(t, "mode-into", unix.SYS_GET_MEMPOLICY, places, func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, 0, 0, 0, 0} })
	s.single(t, "nodes-into", unix.SYS_GET_MEMPOLICY, places, func(s *scene, addr uintptr) []uintptr { return []uintptr{0, addr, 1024, 0, 0} })
	one := func(name string, args ...uintptr) {
		s.single(t, name, unix.SYS_GET_MEMPOLICY, places[:1], func(*scene, uintptr) []uintptr { return args })
	}
	one("nothing", 0, 0, 0, 0, 0)
	one("unknown-flag", 0, 0, 0, 0, 1<<10)
	one("allowed-with-address", 0, 0, 0, 0, allowed|address)
	one("node-alone", 0, 0, 0, 0, node)
}

func TestSetMempolicy(t *testing.T) {
	needsPolicies(t)
	s := newScene(t)
	t.Cleanup(func() { call(unix.SYS_SET_MEMPOLICY, unix.MPOL_DEFAULT, 0, 0) })
	s.single(t, "nodes-from", unix.SYS_SET_MEMPOLICY, places, func(s *scene, addr uintptr) []uintptr { return []uintptr{unix.MPOL_PREFERRED, addr, 64} })
	for _, c := range []struct {
		name string
		mode uintptr
		mask uint64
		bits uintptr
	}{
		{"default", unix.MPOL_DEFAULT, 0, 0},
		{"default-with-nodes", unix.MPOL_DEFAULT, 1, 64},
		{"bind-nowhere", unix.MPOL_BIND, 0, 64},
		{"bind-no-such-node", unix.MPOL_BIND, 1 << 40, 64},
		{"unknown", 99, 1, 64},
	} {
		s.single(t, c.name, unix.SYS_SET_MEMPOLICY, places[:1], func(s *scene, _ uintptr) []uintptr { return []uintptr{c.mode, s.nodes(c.mask), c.bits} })
	}
}

func TestProcessMadvise(t *testing.T) {
	fd, err := unix.PidfdOpen(unix.Getpid(), 0)
	if err != nil {
		t.Skipf("pidfd_open: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if r := call(unix.SYS_PROCESS_MADVISE, uintptr(fd), 0, 0, unix.MADV_COLD, 0); r.Errno == unix.ENOSYS {
		t.Skip("process_madvise needs Linux 5.10")
	}
	s := newScene(t)
	for _, a := range []struct {
		name   string
		advice uintptr
	}{{"cold", unix.MADV_COLD}, {"willneed", unix.MADV_WILLNEED}, {"unknown", 12345}} {
		t.Run(a.name, func(t *testing.T) {
			f := form{nr: unix.SYS_PROCESS_MADVISE, quiet: true, beyond: true, args: func(s *scene, addr, n uintptr) []uintptr {
				return []uintptr{uintptr(fd), s.vector(0, addr, n), 1, a.advice, 0}
			}}
			s.overPlaces(t, f, adviceLengths)
		})
	}
	one := func(name string, args func(s *scene) []uintptr) {
		s.single(t, name, unix.SYS_PROCESS_MADVISE, places[:1], func(s *scene, _ uintptr) []uintptr { return args(s) })
	}
	one("flags", func(s *scene) []uintptr {
		return []uintptr{uintptr(fd), s.vector(0, s.a.Page(0), P), 1, unix.MADV_COLD, 1}
	})
	one("no-process", func(s *scene) []uintptr {
		return []uintptr{uintptr(s.file), s.vector(0, s.a.Page(0), P), 1, unix.MADV_COLD, 0}
	})
	one("closed", func(s *scene) []uintptr { return []uintptr{1 << 20, s.vector(0, s.a.Page(0), P), 1, unix.MADV_COLD, 0} })
	one("bad-vector", func(s *scene) []uintptr { return []uintptr{uintptr(fd), s.a.Page(8), 1, unix.MADV_COLD, 0} })
	one("too-many", func(s *scene) []uintptr {
		return []uintptr{uintptr(fd), s.vector(0, s.a.Page(0), P), 1025, unix.MADV_COLD, 0}
	})
}
