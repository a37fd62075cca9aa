// Calls that take addresses by other means than one range: vectors, words, segments, rings.
package matrix

import (
	"fmt"
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// vector puts an iovec into the scratch page, slot by slot.
func (s *scene) vector(slot int, base, n uintptr) uintptr {
	v := (*[2]uintptr)(at(s.scratch + uintptr(slot)*16))
	v[0], v[1] = base, n
	return uintptr(unsafe.Pointer(v))
}

// In scratch: iovecs, then room for data.
func (s *scene) data() uintptr { return s.scratch + P }

var pid = uintptr(unix.Getpid())

// Most of it is memory that is there in part only: what counts is how much was copied.
func TestProcessVM(t *testing.T) {
	s := newScene(t)
	for _, c := range []struct {
		name string
		nr   uintptr
		args func(s *scene, addr, n uintptr) []uintptr
	}{
		{"readv-from", unix.SYS_PROCESS_VM_READV, func(s *scene, addr, n uintptr) []uintptr {
			return []uintptr{pid, s.vector(0, s.data(), 62*P), 1, s.vector(1, addr, n), 1, 0}
		}},
		{"readv-into", unix.SYS_PROCESS_VM_READV, func(s *scene, addr, n uintptr) []uintptr {
			return []uintptr{pid, s.vector(0, addr, n), 1, s.vector(1, s.data(), 62*P), 1, 0}
		}},
		{"writev-to", unix.SYS_PROCESS_VM_WRITEV, func(s *scene, addr, n uintptr) []uintptr {
			return []uintptr{pid, s.vector(0, s.data(), 62*P), 1, s.vector(1, addr, n), 1, 0}
		}},
		{"writev-from", unix.SYS_PROCESS_VM_WRITEV, func(s *scene, addr, n uintptr) []uintptr {
			return []uintptr{pid, s.vector(0, addr, n), 1, s.vector(1, s.data(), 62*P), 1, 0}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := form{name: c.name, nr: c.nr, args: c.args, quiet: true}
			t.Run("ordinary", func(t *testing.T) { s.overPlaces(t, f, ordinary) })
			t.Run("huge", func(t *testing.T) { s.overPlaces(t, f, huge) })
		})
	}
}

// single is a test of calls with one address, or none, at each place. The result and what it did to the
// scene are one line.
func (s *scene) single(t *testing.T, name string, nr uintptr, at []place, args func(s *scene, addr uintptr) []uintptr) {
	t.Run(name, func(t *testing.T) {
		for _, p := range at {
			t.Run(p.name, func(t *testing.T) {
				s.in(t)
				f := form{name: name, nr: nr, partial: true, args: func(s *scene, addr, _ uintptr) []uintptr { return args(s, addr) }}
				kit.Say(t, "%s", s.try(f, p.address(s), P))
			})
		}
	})
}

func TestProcessVMArguments(t *testing.T) {
	s := newScene(t)
	good := func(s *scene) (uintptr, uintptr) { return s.vector(0, s.data(), P), s.vector(1, s.data()+P, P) }
	for _, c := range []struct {
		name string
		args func(s *scene) []uintptr
	}{
		{"flags", func(s *scene) []uintptr { l, r := good(s); return []uintptr{pid, l, 1, r, 1, 1} }},
		{"no-local", func(s *scene) []uintptr { _, r := good(s); return []uintptr{pid, 0, 0, r, 1, 0} }},
		{"no-remote", func(s *scene) []uintptr { l, _ := good(s); return []uintptr{pid, l, 1, 0, 0, 0} }},
		{"nothing", func(s *scene) []uintptr { return []uintptr{pid, 0, 0, 0, 0, 0} }},
		{"too-many-local", func(s *scene) []uintptr { l, r := good(s); return []uintptr{pid, l, 1025, r, 1, 0} }},
		{"too-many-remote", func(s *scene) []uintptr { l, r := good(s); return []uintptr{pid, l, 1, r, 1025, 0} }},
		{"bad-local-vector", func(s *scene) []uintptr { _, r := good(s); return []uintptr{pid, s.a.Page(8), 1, r, 1, 0} }},
		{"bad-remote-vector", func(s *scene) []uintptr { l, _ := good(s); return []uintptr{pid, l, 1, s.a.Page(8), 1, 0} }},
		{"nobody", func(s *scene) []uintptr { l, r := good(s); return []uintptr{1 << 22, l, 1, r, 1, 0} }},
		{"pid-0", func(s *scene) []uintptr { l, r := good(s); return []uintptr{0, l, 1, r, 1, 0} }},
	} {
		for name, nr := range map[string]uintptr{"readv": unix.SYS_PROCESS_VM_READV, "writev": unix.SYS_PROCESS_VM_WRITEV} {
			s.single(t, name+"-"+c.name, nr, places[:1], func(s *scene, _ uintptr) []uintptr { return c.args(s) })
		}
	}
}

// None of these may sleep: the words never hold the value that is waited for.
func TestFutex(t *testing.T) {
	s := newScene(t)
	const never = 0xdead0000
	for _, private := range []struct {
		name string
		flag uintptr
	}{{"shared", 0}, {"private", kit.FutexPrivate}} {
		for _, op := range []struct {
			name string
			args func(s *scene, addr uintptr) []uintptr
		}{
			{"wait", func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, kit.FutexWait, never} }},
			{"wake", func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, kit.FutexWake, 1} }},
			{"requeue-from", func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, kit.FutexRequeue, 1, 1, s.data()} }},
			{"requeue-to", func(s *scene, addr uintptr) []uintptr { return []uintptr{s.data(), kit.FutexRequeue, 1, 1, addr} }},
			{"compare-requeue", func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, 4, 1, 1, s.data(), never} }},
			{"wake-op", func(s *scene, addr uintptr) []uintptr { return []uintptr{s.data(), 5, 1, 1, addr, 0} }},
			{"wait-bitset", func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, 9, never, 0, 0, 1} }},
			{"wait-no-bits", func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, 9, never, 0, 0, 0} }},
			{"wake-bitset", func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, 10, 1, 0, 0, 1} }},
			{"unknown", func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, 99, 1} }},
		} {
			s.single(t, private.name+"-"+op.name, unix.SYS_FUTEX, places, func(s *scene, addr uintptr) []uintptr {
				args := op.args(s, addr)
				args[1] |= private.flag
				return args
			})
		}
	}
}

func TestShm(t *testing.T) {
	s := newScene(t)
	for _, c := range []struct {
		name  string
		flags uintptr
	}{
		{"attach", 0},
		{"attach-read-only", unix.SHM_RDONLY},
		{"attach-rounding", unix.SHM_RND},
		{"attach-replacing", 0x4000},
		{"attach-executable", 0x8000},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, p := range places {
				t.Run(p.name, func(t *testing.T) {
					s.in(t)
					s.prepare()
					r := call(unix.SYS_SHMAT, uintptr(s.segment), p.address(s), c.flags)
					shown := s.shown(form{places: true}, r, 4*P)
					kit.Say(t, "%s", s.outcome(shown, !r.OK(), true))
				})
			}
		})
	}
	s.single(t, "attach-replacing-nothing", unix.SYS_SHMAT, places[:1], func(s *scene, _ uintptr) []uintptr { return []uintptr{uintptr(s.segment), 0, 0x4000} })
	s.single(t, "attach-nothing", unix.SYS_SHMAT, places[:1], func(s *scene, addr uintptr) []uintptr { return []uintptr{1 << 30, addr, 0} })
	s.single(t, "attach-negative", unix.SYS_SHMAT, places[:1], func(s *scene, addr uintptr) []uintptr { return []uintptr{^uintptr(0), addr, 0} })
	inside := append([]place{{"shm-inside", 49, 0}, {"shm-unaligned", 48, 1}}, places...)
	s.single(t, "detach", unix.SYS_SHMDT, inside, func(s *scene, addr uintptr) []uintptr { return []uintptr{addr} })
}

// The context of AIO is where its ring is mapped; what is no ring is none.
func TestAIO(t *testing.T) {
	s := newScene(t)
	s.single(t, "destroy", unix.SYS_IO_DESTROY, places, func(s *scene, addr uintptr) []uintptr { return []uintptr{addr} })
	s.single(t, "submit-nothing", unix.SYS_IO_SUBMIT, places, func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, 0, 0} })
	s.single(t, "getevents", unix.SYS_IO_GETEVENTS, places, func(s *scene, addr uintptr) []uintptr { return []uintptr{addr, 0, 1, s.data(), 0} })
	s.single(t, "setup-none", unix.SYS_IO_SETUP, places, func(s *scene, addr uintptr) []uintptr { return []uintptr{0, addr} })
	t.Run("setup-too-many", func(t *testing.T) {
		context := (*uintptr)(at(s.data()))
		*context = 0
		r := call(unix.SYS_IO_SETUP, 0xffffffff, s.data())
		kit.Say(t, "%s", r)
		if r.OK() {
			call(unix.SYS_IO_DESTROY, *context)
		}
	})
	t.Run("setup", func(t *testing.T) {
		for _, p := range places {
			t.Run(p.name, func(t *testing.T) {
				s.in(t)
				s.prepare()
				r := call(unix.SYS_IO_SETUP, 1, p.address(s))
				kit.Say(t, "%s", r)
				if r.OK() {
					ring := *(*uintptr)(at(p.address(s)))
					assert.NotZero(t, ring)
					assert.True(t, call(unix.SYS_IO_DESTROY, ring).OK())
					assert.Equal(t, unix.EINVAL, call(unix.SYS_IO_DESTROY, ring).Errno)
				}
				s.touched = true
			})
		}
	})
}

// The program break of this process, which Go does not use, from where it is at first.
func TestBrk(t *testing.T) {
	start := call(unix.SYS_BRK, 0).Value
	t.Cleanup(func() { call(unix.SYS_BRK, start) })
	a := kit.NewArena(t, 4)
	a.Anon(t, 0, 4, kit.RW, 0)
	var line []string
	for _, c := range []struct {
		name string
		addr uintptr
	}{
		{"grow", start + 4*P}, {"unaligned", start + 5*P + 1}, {"shrink", start + P}, {"below", start - 1}, {"same", start + P},
		{"null", 0}, {"one", 1}, {"mapped", a.Page(1)}, {"top-page", top - P}, {"top", top}, {"last", ^uintptr(0)}, {"kernel", 1 << 63}, {"back", start},
	} {
		line = append(line, fmt.Sprintf("%s=%#x", c.name, call(unix.SYS_BRK, c.addr).Value-start))
	}
	for _, l := range line {
		name, _, _ := strings.Cut(l, "=")
		t.Run(name, func(t *testing.T) { kit.Say(t, "%s", l) })
	}
}
