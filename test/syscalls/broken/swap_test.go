// Two file mappings are swapped at one address by two threads while a third checks contents against stale
// translations: once mmap has returned, no thread may see a byte of the other file.
package broken

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"sentrymm/test/syscalls/kit"
)

// A swap is one address and what is mapped there.
type swap struct {
	addr  uintptr
	files [2]int

	// mu is held while a mapping is changed. version is odd then; shows is the file mapped after it.
	mu      sync.Mutex
	version atomic.Uint64
	shows   atomic.Uint32
}

func TestSwappedFilesShowNoStaleBytes(t *testing.T) {
	for name, flags := range map[string]int{"shared": unix.MAP_SHARED, "private": unix.MAP_PRIVATE} {
		t.Run(name, func(t *testing.T) {
			kit.EachDir(t, func(t *testing.T, d kit.Dir) { swaps(t, d, flags) })
		})
	}
}

const swapRounds = 300

func swaps(t *testing.T, d kit.Dir, flags int) {
	a := kit.NewArena(t, 4)
	s := &swap{addr: a.Page(1)}
	for i := range s.files {
		s.files[i] = d.File(t, 1)
		_, err := unix.Pwrite(s.files[i], []byte{letter(i)}, 0)
		require.NoError(t, err)
	}
	a.Map(t, 1, 1, unix.PROT_READ, flags, s.files[0], 0)

	var swappers, checkers sync.WaitGroup
	var done atomic.Bool
	checker := kit.NewThread(t)
	checkers.Go(func() {
		for !done.Load() {
			s.check(t, checker)
		}
	})
	for i := range s.files {
		actor := kit.NewThread(t)
		swappers.Go(func() {
			for range swapRounds {
				s.show(t, actor, i, flags)
				// Between two of its own, let the other one in.
				runtime.Gosched()
			}
		})
	}
	swappers.Wait()
	done.Store(true)
	checkers.Wait()
}

func letter(file int) byte { return 'a' + byte(file) }

// show maps a file, and looks at it from the thread that did.
func (s *swap) show(t *testing.T, actor *kit.Actor, file, flags int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version.Add(1)
	r := actor.Mmap(s.addr, kit.Len(1), unix.PROT_READ, flags|unix.MAP_FIXED, s.files[file], 0)
	s.shows.Store(uint32(file))
	s.version.Add(1)
	assert.Equal(t, kit.Result{Value: s.addr}, r)
	assert.Equal(t, kit.Access{Value: uint64(letter(file))}, actor.Load(s.addr))
}

// check looks once. Whatever happens meanwhile, one of the files is mapped; if nothing does, it is the one
// that was mapped last.
func (s *swap) check(t *testing.T, actor *kit.Actor) {
	before, file := s.version.Load(), s.shows.Load()
	access := actor.Load(s.addr)
	settled := before%2 == 0 && s.version.Load() == before
	switch {
	case access.Faulted():
		t.Errorf("nothing was mapped: %v", access.SignalName())
	case access.Value != uint64(letter(0)) && access.Value != uint64(letter(1)):
		t.Errorf("neither file: %v", access)
	case settled && access.Value != uint64(letter(int(file))):
		t.Errorf("file %d is mapped, but %c was read", file, byte(access.Value))
	}
}

// The same when the mapping moves in from elsewhere, by mremap.
func TestMovedInFilesShowNoStaleBytes(t *testing.T) {
	a := kit.NewArena(t, 8)
	files := [2]int{kit.File(t, 1), kit.File(t, 1)}
	for i, fd := range files {
		_, err := unix.Pwrite(fd, []byte{letter(i)}, 0)
		require.NoError(t, err)
	}
	a.Map(t, 1, 1, unix.PROT_READ, unix.MAP_SHARED, files[0], 0)
	checker := kit.NewThread(t)
	for round := range 200 {
		file := round % 2
		a.Map(t, 5, 1, unix.PROT_READ, unix.MAP_SHARED, files[file], 0)
		require.False(t, checker.Load(a.Page(5)).Faulted())
		require.False(t, checker.Load(a.Page(1)).Faulted())
		r := kit.Me.Mremap(a.Page(5), kit.Len(1), kit.Len(1), unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED, a.Page(1))
		require.Equal(t, kit.Result{Value: a.Page(1)}, r)
		require.Equal(t, kit.Access{Value: uint64(letter(file))}, checker.Load(a.Page(1)))
		require.Equal(t, "SIGSEGV/MAPERR", checker.Load(a.Page(5)).SignalName())
	}
}
