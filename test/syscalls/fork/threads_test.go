// These tests claim that a child has the memory of one moment while threads of the parent write to it:
//
//  1. every value in the child was there in the parent;
//  2. what one thread wrote first is there if what it wrote later is;
//  3. what the child has does not change any more.
package fork

import (
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"sentrymm/test/syscalls/kit"
)

// whileWriting calls work while threads run write over and over, each with its number and a count from 1.
func whileWriting(threads int, write func(thread int, count uint64), work func()) {
	var stop atomic.Bool
	var running, ended sync.WaitGroup
	for i := range threads {
		running.Add(1)
		ended.Go(func() {
			for count := uint64(1); !stop.Load(); count++ {
				write(i, count)
				if count == 1 {
					running.Done()
				}
			}
		})
	}
	running.Wait()
	defer func() { stop.Store(true); ended.Wait() }()
	work()
}

// peek is the first words of so many pages of a child, from page 0 on. The child need not run for that, which takes
// time while threads keep all processors busy.
func peek(t *testing.T, child *kit.Actor, a *kit.Arena, pages int) []uint64 {
	t.Helper()
	found := make([]uint64, pages)
	remote := make([]unix.RemoteIovec, pages)
	for i := range remote {
		remote[i] = unix.RemoteIovec{Base: a.Page(i), Len: 8}
	}
	local := []unix.Iovec{{Base: (*byte)(unsafe.Pointer(&found[0])), Len: uint64(8 * pages)}}
	n, err := unix.ProcessVMReadv(child.Pid(), local, remote, 0)
	require.NoError(t, err)
	require.Equal(t, 8*pages, n)
	return found
}

func rounds() int {
	if kit.Long() {
		return 1000
	}
	return 5
}

func TestTwoPagesAreOfOneMoment(t *testing.T) {
	const pages = 256
	for _, c := range []struct {
		name          string
		first, second int
		split         bool // into several mappings
	}{
		{"upwards", 0, pages - 1, false},
		{"downwards", pages - 1, 0, false},
		{"upwards, in several mappings", 0, pages - 1, true},
		{"downwards, in several mappings", pages - 1, 0, true},
		{"side by side", 100, 101, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := kit.NewArena(t, pages)
			a.Anon(t, 0, pages, kit.RW, 0)
			a.Fill(t, 0, pages, 0)
			if c.split {
				for i := 3; i < pages-3; i += 16 {
					require.Zero(t, kit.Me.Mprotect(a.Page(i), kit.Len(1), unix.PROT_READ))
				}
			}
			first, second := word(a, c.first), word(a, c.second)
			atomic.StoreUint64(first, 0)
			atomic.StoreUint64(second, 0)
			write := func(_ int, count uint64) {
				atomic.StoreUint64(first, count)
				atomic.StoreUint64(second, count)
			}
			whileWriting(1, write, func() {
				for range rounds() {
					child := kit.Fork(t)
					found := peek(t, child, a, pages)
					x, y := found[c.first], found[c.second]
					assert.Contains(t, []uint64{y, y + 1}, x, "first and second page")
					assert.Equal(t, x, child.Load64(a.Page(c.first)).Value)
					assert.Equal(t, y, child.Load64(a.Page(c.second)).Value)
					child.Exit(t, 0)
				}
			})
		})
	}
}

func TestEveryValueWasThere(t *testing.T) {
	const threads, each = 2, 4
	a := kit.NewArena(t, threads*each)
	a.Anon(t, 0, threads*each, kit.RW, 0)
	for i := range threads * each {
		*word(a, i) = 0xffffffff
	}
	// The halves belong together: a word that is torn, or of no moment, shows.
	write := func(thread int, count uint64) {
		for i := range each {
			atomic.StoreUint64(word(a, thread*each+i), count<<32|uint64(^uint32(count)))
		}
	}
	whileWriting(threads, write, func() {
		for range rounds() {
			child := kit.Fork(t)
			found := peek(t, child, a, threads*each)
			for thread := range threads {
				last := ^uint64(0)
				for i := range each {
					v := found[thread*each+i]
					require.Equal(t, ^uint32(v), uint32(v>>32), "%#x", v)
					require.GreaterOrEqual(t, last, v>>32, "later pages cannot be newer")
					last = v >> 32
				}
			}
			child.Exit(t, 0)
		}
	})
}

// The parent's own writes are not lost on the way: a thread reads back what it has just written, while the
// pages become copy-on-write under it.
func TestParentLosesNoWrite(t *testing.T) {
	const threads = 2
	a := kit.NewArena(t, threads)
	a.Anon(t, 0, threads, kit.RW, 0)
	var lost atomic.Int64
	write := func(thread int, count uint64) {
		p := word(a, thread)
		if count > 1 && atomic.LoadUint64(p) != count-1 {
			lost.Add(1)
		}
		atomic.StoreUint64(p, count)
	}
	whileWriting(threads, write, func() {
		for range rounds() {
			child := kit.Fork(t)
			require.False(t, child.Store64(a.Page(0), 1<<50).Faulted())
			child.Exit(t, 0)
		}
	})
	assert.Zero(t, lost.Load())
}

func TestForkWhileMappingsChange(t *testing.T) {
	a := kit.NewArena(t, 16)
	a.Anon(t, 0, 16, kit.RW, 0)
	a.Fill(t, 0, 16, 1)
	// Page 4 to 7 are replaced over and over, by memory of zeroes or of a file; the rest stays.
	fd := kit.Memfd(t, 4, 0)
	write := func(thread int, count uint64) {
		if count%2 == 0 {
			kit.Me.Mmap(a.Page(4), kit.Len(4), kit.RW, unix.MAP_PRIVATE|unix.MAP_FIXED, fd, 0)
		} else {
			kit.Me.Mmap(a.Page(4), kit.Len(4), kit.RW, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_FIXED, -1, 0)
		}
	}
	whileWriting(1, write, func() {
		for range rounds() {
			child := kit.Fork(t)
			require.Equal(t, "01 02 03 04", contents(a, child, 0, 4))
			require.Contains(t, []string{"00 00 00 00", "41 42 43 44"}, contents(a, child, 4, 4), "one of them, and whole")
			require.Equal(t, "09 0a 0b 0c 0d 0e 0f 10", contents(a, child, 8, 8))
			child.Exit(t, 0)
		}
	})
}
