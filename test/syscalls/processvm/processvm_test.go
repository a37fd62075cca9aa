// Package processvm claims of process_vm_readv(2) and process_vm_writev(2): they copy between processes
// what both have mapped with the permission, say how much that was, and change nothing else.
package processvm

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

func TestMain(m *testing.M) { kit.Main(m) }

const none = unix.PROT_NONE

// A span is part of an arena, in bytes from its beginning.
type span struct{ at, length uintptr }

// A pair is two processes: the one that acts, and the one that it reads and writes. The pages of both
// arenas are at the same addresses: they are parent and child.
type pair struct {
	*kit.Arena
	actor, other *kit.Actor
	vectors      []byte // shared by both
}

// newPair is this process and a child. Both have pages 0 and 1 for reading and writing, 2 nothing, 3 for
// reading only, 4 inaccessible, 5 a file's and 6 after its end, 8 to 11 shared. The child's bytes are
// larger than the parent's by 0x80.
func newPair(t *testing.T) *pair {
	p := &pair{Arena: kit.NewArena(t, 16), actor: kit.Me, vectors: kit.Shared(t, kit.PageSize)}
	p.Anon(t, 0, 2, kit.RW, 0)
	p.Anon(t, 3, 1, kit.RW, 0)
	p.Anon(t, 4, 1, none, 0)
	p.Map(t, 5, 2, kit.RW, unix.MAP_PRIVATE, kit.Memfd(t, 1, 0), 0)
	p.Anon(t, 12, 4, kit.RW, 0)
	p.Map(t, 8, 4, kit.RW, unix.MAP_SHARED|unix.MAP_ANONYMOUS, -1, 0)
	p.Fill(t, 0, 2, 0x10)
	p.Fill(t, 3, 1, 0x13)
	p.Fill(t, 12, 4, 0x1c)
	require.Zero(t, kit.Me.Mprotect(p.Page(3), kit.Len(1), unix.PROT_READ))
	p.other = kit.Fork(t)
	for page, value := range map[int]byte{0: 0x90, 1: 0x91, 5: 0x95} {
		require.False(t, p.other.Store(p.Page(page), value).Faulted())
	}
	return p
}

func (p *pair) iovecs(at int, spans []span) (addr, count uintptr) {
	area := p.vectors[at:]
	for i, s := range spans {
		v := (*[2]uintptr)(unsafe.Pointer(&area[i*16]))
		v[0], v[1] = p.Base+s.at, s.length
	}
	return uintptr(unsafe.Pointer(&area[0])), uintptr(len(spans))
}

// copy makes one of the two calls.
func (p *pair) copy(nr uintptr, pid int, local, remote []span, flags uintptr) kit.Result {
	l, ln := p.iovecs(0, local)
	r, rn := p.iovecs(2048, remote)
	return p.actor.Call(nr, uintptr(pid), l, ln, r, rn, flags)
}

const page = 4096

// Each case is made as a read and as a write; local memory is pages 12 to 15 if nothing else is said.
var cases = []struct {
	name          string
	local, remote []span
}{
	{"one page", []span{{12 * page, page}}, []span{{0, page}}},
	{"nothing", []span{{12 * page, 0}}, []span{{0, 0}}},
	{"no vectors", nil, nil},
	{"across a border", []span{{12*page + 100, 5000}}, []span{{page - 100, 200}}},
	{"local shorter", []span{{12 * page, 10}}, []span{{0, page}}},
	{"remote shorter", []span{{12 * page, page}}, []span{{0, 10}}},
	{"several to one", []span{{12 * page, 3 * page}}, []span{{0, 10}, {page, 10}, {3 * page, 0}}},
	{"one to several", []span{{12 * page, 5}, {13 * page, 5}, {14 * page, 10}}, []span{{page, 20}}},
	{"remote hole", []span{{12 * page, page}}, []span{{2 * page, page}}},
	{"remote hole at once after", []span{{12 * page, 2 * page}}, []span{{page, page}, {2 * page, page}}},
	{"remote hole inside", []span{{12 * page, 2 * page}}, []span{{page, 2 * page}}},
	{"remote hole first", []span{{12 * page, 2 * page}}, []span{{2 * page, page}, {0, page}}},
	{"remote read-only", []span{{12 * page, page}}, []span{{3 * page, page}}},
	{"remote inaccessible", []span{{12 * page, page}}, []span{{4 * page, page}}},
	{"remote after the file", []span{{12 * page, page}}, []span{{6 * page, page}}},
	{"remote private file", []span{{12 * page, page}}, []span{{5 * page, page}}},
	{"remote shared", []span{{12 * page, page}}, []span{{8 * page, page}}},
	{"local hole", []span{{7 * page, page}}, []span{{0, page}}},
	{"local hole after a vector", []span{{12 * page, page}, {7 * page, page}}, []span{{0, 2 * page}}},
	{"local read-only", []span{{3 * page, page}}, []span{{0, page}}},
	{"local inaccessible", []span{{4 * page, page}}, []span{{0, page}}},
	{"remote length negative", []span{{12 * page, page}}, []span{{0, 1 << 63}}},
	{"local length negative", []span{{12 * page, 1 << 63}}, []span{{0, page}}},
	{"remote of the kernel", []span{{12 * page, page}}, []span{{1<<63 - kit.ArenaBase, page}}},
}

func TestCopies(t *testing.T) {
	for _, c := range cases {
		for name, nr := range map[string]uintptr{"read": unix.SYS_PROCESS_VM_READV, "write": unix.SYS_PROCESS_VM_WRITEV} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				p := newPair(t)
				r := p.copy(nr, p.other.Pid(), c.local, c.remote, 0)
				kit.Say(t, "%v", r)
				kit.Say(t, "here  %v", p.Bytes(kit.Me, 0, p.Pages))
				kit.Say(t, "there %v", p.Bytes(p.other, 0, p.Pages))
				if !r.OK() {
					fresh := fmt.Sprint([]string{"1c", "1d", "1e", "1f"})
					assert.Equal(t, fresh, fmt.Sprint(p.Bytes(kit.Me, 12, 4)), "a call that failed changed something")
				}
			})
		}
	}
}

func TestWriteBreaksCopyOnWrite(t *testing.T) {
	p := newPair(t)
	// Page 12 was not written since the fork: both processes have one page.
	r := p.copy(unix.SYS_PROCESS_VM_WRITEV, p.other.Pid(), []span{{13 * page, 1}}, []span{{12 * page, 1}}, 0)
	require.Equal(t, kit.Result{Value: 1}, r)
	assert.Equal(t, []string{"1c"}, p.Bytes(kit.Me, 12, 1))
	assert.Equal(t, []string{"1d"}, p.Bytes(p.other, 12, 1))
}

func TestWriteToSharedMemoryIsSeenByBoth(t *testing.T) {
	p := newPair(t)
	r := p.copy(unix.SYS_PROCESS_VM_WRITEV, p.other.Pid(), []span{{13 * page, 1}}, []span{{9 * page, 1}}, 0)
	require.Equal(t, kit.Result{Value: 1}, r)
	assert.Equal(t, []string{"1d"}, p.Bytes(kit.Me, 9, 1))
	assert.Equal(t, []string{"1d"}, p.Bytes(p.other, 9, 1))
}

func TestReadSeesWhatReplacedAMapping(t *testing.T) {
	p := newPair(t)
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_FIXED
	require.True(t, p.other.Mmap(p.Page(0), kit.Len(1), kit.RW, flags, -1, 0).OK())
	r := p.copy(unix.SYS_PROCESS_VM_READV, p.other.Pid(), []span{{12 * page, 2 * page}}, []span{{0, 2 * page}}, 0)
	require.Equal(t, kit.Result{Value: 2 * page}, r)
	assert.Equal(t, []string{"00", "91"}, p.Bytes(kit.Me, 12, 2))
}

func TestOwnProcess(t *testing.T) {
	p := newPair(t)
	r := p.copy(unix.SYS_PROCESS_VM_READV, kit.Me.Pid(), []span{{12 * page, page}}, []span{{page, page}}, 0)
	require.Equal(t, kit.Result{Value: page}, r)
	assert.Equal(t, []string{"11"}, p.Bytes(kit.Me, 12, 1))
}

func TestUnmappedByAThreadMeanwhile(t *testing.T) {
	p := newPair(t)
	require.Zero(t, p.other.Munmap(p.Page(1), kit.Len(1)))
	r := p.copy(unix.SYS_PROCESS_VM_READV, p.other.Pid(), []span{{12 * page, 2 * page}}, []span{{0, page}, {page, page}}, 0)
	assert.Equal(t, kit.Result{Value: page}, r)
}

func TestRefusals(t *testing.T) {
	one := []span{{12 * page, 1}}
	t.Run("flags", func(t *testing.T) {
		p := newPair(t)
		assert.Equal(t, unix.EINVAL, p.copy(unix.SYS_PROCESS_VM_READV, p.other.Pid(), one, one, 1).Errno)
	})
	t.Run("no such process", func(t *testing.T) {
		p := newPair(t)
		assert.Equal(t, unix.ESRCH, p.copy(unix.SYS_PROCESS_VM_READV, 1<<22+1, one, one, 0).Errno)
	})
	t.Run("a process that has ended", func(t *testing.T) {
		p := newPair(t)
		gone := kit.Fork(t)
		gone.Exit(t, 0)
		assert.Equal(t, unix.ESRCH, p.copy(unix.SYS_PROCESS_VM_READV, gone.Pid(), one, one, 0).Errno)
	})
	t.Run("too many vectors", func(t *testing.T) {
		p := newPair(t)
		addr, _ := p.iovecs(0, one)
		r := kit.Me.Call(unix.SYS_PROCESS_VM_READV, uintptr(p.other.Pid()), addr, 1, addr, 1025, 0)
		assert.Equal(t, unix.EINVAL, r.Errno)
		r = kit.Me.Call(unix.SYS_PROCESS_VM_READV, uintptr(p.other.Pid()), addr, 1025, addr, 1, 0)
		assert.Equal(t, unix.EINVAL, r.Errno)
	})
	t.Run("vectors that cannot be read", func(t *testing.T) {
		p := newPair(t)
		good, _ := p.iovecs(0, one)
		for _, addrs := range [][2]uintptr{{p.Page(2), good}, {good, p.Page(2)}} {
			r := kit.Me.Call(unix.SYS_PROCESS_VM_READV, uintptr(p.other.Pid()), addrs[0], 1, addrs[1], 1, 0)
			assert.Equal(t, unix.EFAULT, r.Errno)
		}
	})
	t.Run("no permission", func(t *testing.T) {
		p := newPair(t)
		p.actor = kit.Fork(t)
		const nobody = 65534
		require.True(t, p.actor.Call(unix.SYS_SETRESUID, nobody, nobody, nobody).OK())
		assert.Equal(t, unix.EPERM, p.copy(unix.SYS_PROCESS_VM_READV, kit.Me.Pid(), one, one, 0).Errno)
	})
}
