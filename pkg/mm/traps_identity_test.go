// Whoever keeps count of a file's users sees them go when the system call returns that
// unmapped it: shm_nattch, umount(2), flock(2) and close notifications depend on it.
// While somebody reads /proc/[pid]/maps, the reader is the one who lets go.

package mm

import (
	"fmt"
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/auth"
	"gvisor.dev/gvisor/pkg/sentry/kernel/shm"
	"gvisor.dev/gvisor/pkg/sentry/ktime"
)

// shmCtx is the context of a task that uses SysV shared memory. It is a clock, too,
// on which each moment is a second after the one before.
type shmCtx struct {
	*testCtx
	seconds int64
}

// Value implements context.Context.
func (c *shmCtx) Value(key any) any {
	switch key {
	case shm.CtxDeviceID:
		return uint32(1)
	case ktime.CtxRealtimeClock:
		return c
	case auth.CtxThreadGroupID:
		return int32(1)
	}
	return c.testCtx.Value(key)
}

// Now implements ktime.Clock.
func (c *shmCtx) Now() ktime.Time {
	c.seconds++
	return ktime.FromSeconds(c.seconds)
}

// NewTimer implements ktime.Clock.
func (*shmCtx) NewTimer(ktime.Listener) ktime.Timer { panic("there are no timers") }

// segments creates segments of SysV shared memory.
type segments struct {
	m   trapMM
	ctx *shmCtx
	reg *shm.Registry
}

func newSegments(m trapMM) *segments {
	return &segments{m, &shmCtx{testCtx: m.ctx}, shm.NewRegistry(m.ctx.creds.UserNamespace)}
}

// create returns a segment. It goes at the end of the test.
func (s *segments) create(n uint64) *shm.Shm {
	s.m.t.Helper()
	seg, err := s.reg.FindOrCreate(s.ctx, 1, 0, n, 0o600, true, true, false)
	if err != nil {
		s.m.t.Fatal(err)
	}
	worldOf(s.m.t).atEnd(func() {
		if !s.m.t.Failed() {
			s.m.MUnmap(s.ctx, s.m.base, 1<<30)
			seg.MarkDestroyed(s.ctx)
			seg.DecRef(s.ctx)
		}
	})
	return seg
}

// attach is shmat(2) at addr, with SHM_REMAP if remap is set.
func (s *segments) attach(seg *shm.Shm, addr hostarch.Addr, remap bool) {
	s.m.t.Helper()
	opts, err := seg.ConfigureAttach(s.ctx, addr, shm.AttachOpts{Remap: remap})
	if err == nil {
		opts.Fixed, opts.Unmap = true, remap
		_, err = s.m.MMap(s.ctx, opts)
	}
	if err != nil {
		s.m.t.Fatal(err)
	}
}

// mustBeAttached fails the test unless seg's shm_nattch is n.
func (s *segments) mustBeAttached(seg *shm.Shm, n uint64, when string) {
	s.m.t.Helper()
	s.m.check()
	if got := uint64(seg.ReadRefs()) - 2; got != n { // the registry's and the test's
		s.m.t.Errorf("%s, shm_nattch is %d; want %d", when, got, n)
	}
}

func TestAttachCountAfterShmdt(t *testing.T) {
	m := newTrapMM(t)
	s := newSegments(m)
	seg := s.create(4 * pageSize)
	detach := func(addr hostarch.Addr) {
		t.Helper()
		if err := m.DetachShm(s.ctx, addr); err != nil {
			t.Fatal(err)
		}
	}
	a, b := m.base, m.base+1<<20
	s.attach(seg, a, false)
	s.mustBeAttached(seg, 1, "after shmat")
	s.attach(seg, b, false)
	s.mustBeAttached(seg, 2, "after the second shmat")
	m.mustStore(b, "used")
	detach(b)
	s.mustBeAttached(seg, 1, "after shmdt")

	// In parts: a hole in the middle, and something else at the end.
	m.mustUnmap(a+pageSize, pageSize)
	m.mustMap(pageSize, hostarch.Read, fixedAt(a+3*pageSize))
	detach(a)
	s.mustBeAttached(seg, 0, "after shmdt of parts")

	s.attach(seg, a, true) // over what is in its way
	s.attach(seg, a, true)
	s.mustBeAttached(seg, 1, "after SHM_REMAP over itself")
	detach(a)
	s.mustBeAttached(seg, 0, "after the last shmdt")
}

// Attaching over another segment is one attach of the one and one detach of the
// other. A detour in between would show in their times.
func TestShmRemapUpdatesTimes(t *testing.T) {
	m := newTrapMM(t)
	s := newSegments(m)
	old, seg := s.create(pageSize), s.create(pageSize)
	times := func(seg *shm.Shm) (attached, detached int64) {
		ds, err := seg.IPCStat(s.ctx)
		if err != nil {
			t.Fatal(err)
		}
		return int64(ds.ShmAtime), int64(ds.ShmDtime)
	}
	s.attach(old, m.base, false)
	before := s.ctx.seconds
	s.attach(seg, m.base, true)
	attached, detached := times(seg)
	if attached <= before || detached != 0 {
		t.Errorf("the new segment was attached at %d and detached at %d; the remap was after %d", attached, detached, before)
	}
	oldAttached, oldDetached := times(old)
	if oldAttached > before || oldDetached <= before {
		t.Errorf("the old segment was attached at %d and detached at %d; the remap was after %d", oldAttached, oldDetached, before)
	}
	if s.ctx.seconds != before+2 {
		t.Errorf("%d events in place of an attach and a detach", s.ctx.seconds-before)
	}
	m.check()
}

// ways to lose a mapping of n bytes at addr.
var waysToUnmap = map[string]func(m trapMM, addr hostarch.Addr, n uint64) error{
	"munmap": func(m trapMM, addr hostarch.Addr, n uint64) error {
		return m.MUnmap(m.ctx, addr, n)
	},
	"munmap page by page": func(m trapMM, addr hostarch.Addr, n uint64) error {
		for end := addr + hostarch.Addr(n); addr < end; addr += pageSize {
			if err := m.MUnmap(m.ctx, addr, pageSize); err != nil {
				return err
			}
		}
		return nil
	},
	"mmap over it": func(m trapMM, addr hostarch.Addr, n uint64) error {
		_, err := m.mmap(n, hostarch.Read, fixedAt(addr))
		return err
	},
	"mmap that must populate": func(m trapMM, addr hostarch.Addr, n uint64) error {
		_, err := m.mmap(n, hostarch.ReadWrite, fixedAt(addr), populated, required)
		return err
	},
	"mremap over it": func(m trapMM, addr hostarch.Addr, n uint64) error {
		src, err := m.mmap(n, hostarch.Read)
		if err == nil {
			err = m.move(rangeAt(src, n), addr)
		}
		return err
	},
	"exit": func(m trapMM, addr hostarch.Addr, n uint64) error {
		m.exit()
		return nil
	},
}

// The last reference on a file's description ends its locks, so it has to be gone
// when the call returns that unmaps the file: a thread that was told of the munmap
// may try to lock it.
func TestFlockReleasedByMunmap(t *testing.T) {
	for name, unmap := range waysToUnmap {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, 3*pageSize)
			m.mustMap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
			f.id.close()
			// mprotect splits the vma, and merges it again: references come and go.
			for _, perms := range []hostarch.AccessType{hostarch.Read, hostarch.ReadWrite} {
				if err := m.MProtect(m.base+pageSize, pageSize, perms, false); err != nil {
					t.Fatal(err)
				}
			}
			m.mustStore(m.base, "x")
			if f.id.isReleased() {
				t.Fatal("a mapped file was released")
			}
			if err := unmap(m, m.base, 3*pageSize); err != nil {
				t.Fatal(err)
			}
			if !f.id.isReleased() {
				t.Error("the call has returned, and the file is still in use")
			}
		})
	}
}

// umount fails as long as any file of the file system is in use. Here are several, and
// readers who have been there and left.
func TestUmountAfterMunmap(t *testing.T) {
	for name, unmap := range waysToUnmap {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			busy := 0
			at := m.base
			for i := range 4 {
				f := newTestMappable(t, m.mf, 2*pageSize)
				f.id.onRelease = func() { busy-- }
				busy++
				kind := sharedFile(f, 0)
				if i%2 == 0 {
					kind = privateFile(f, 0)
				}
				m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(at), kind, populated)
				f.id.close()
				at += 2 * pageSize
			}
			m.maps()
			m.smaps()
			if key, err := m.GetSharedFutexKey(m.ctx, m.base+2*pageSize); err != nil {
				t.Fatal(err)
			} else {
				key.MappingIdentity.DecRef(m.ctx)
			}
			if busy != 4 {
				t.Fatalf("%d of 4 mapped files are in use", busy)
			}
			if err := unmap(m, m.base, 8*pageSize); err != nil {
				t.Fatal(err)
			}
			if busy != 0 {
				t.Errorf("the call has returned, and %d files are still in use", busy)
			}
		})
	}
}

// inHook makes f run once between a reader's entering and its loading the tree.
func inHook(t *testing.T, f func()) {
	testHookEntered = func() {
		testHookEntered = nil
		f()
	}
	t.Cleanup(func() { testHookEntered = nil })
}

// Who loads the tree first and enters then may find a file in it that was released in
// between. The file complains if it is used then.
func TestReaderEntersBeforeLoad(t *testing.T) {
	for name, read := range map[string]func(m trapMM){
		"maps":  func(m trapMM) { m.maps() },
		"smaps": func(m trapMM) { m.smaps() },
		"futex": func(m trapMM) {
			if key, err := m.GetSharedFutexKey(m.ctx, m.base); err == nil {
				key.MappingIdentity.DecRef(m.ctx)
			}
		},
		"msync": func(m trapMM) { m.MSync(m.ctx, m.base, pageSize, MSyncOpts{Sync: true}) },
		"save":  func(m trapMM) { m.InvalidateUnsavable(m.ctx) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, pageSize)
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
			f.id.close()
			ran := false
			inHook(t, func() {
				ran = true
				m.mustUnmap(m.base, pageSize)
				// The reader is in already, so it might have found the file.
				if f.id.isReleased() {
					t.Error("the file was released with a reader inside")
				}
			})
			read(m)
			if !ran {
				t.Error("it reads without entering")
			}
			if !f.id.isReleased() {
				t.Error("the last reader has left, and the file is still in use")
			}
			m.check()
		})
	}
}

// Readers come and go in any order while files are unmapped. When the last one has
// left, nothing waits any more, and a checkpoint can be taken.
//
//	files dropped    a       b       c
//	reader 1      |------------------------...
//	reader 2              |------...
//	reader 3                      |--------...
func TestNoPendingIdentitiesAtSave(t *testing.T) {
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}, {1, 2, 0}, {1, 0, 2}, {0, 2, 1}, {2, 0, 1}} {
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			m := newTrapMM(t)
			kept := newTestMappable(t, m.mf, pageSize)
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+1<<20), sharedFile(kept, 0))
			m.mustStore(m.base+1<<20, "saved")
			var files []*testMappable
			var leave []func(context.Context)
			for i := range hostarch.Addr(3) {
				f := newTestMappable(t, m.mf, pageSize)
				m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+i*pageSize), sharedFile(f, 0))
				f.id.close()
				files = append(files, f)
			}
			for i := range hostarch.Addr(3) {
				_, l := m.enter()
				leave = append(leave, l)
				m.mustUnmap(m.base+i*pageSize, pageSize)
			}
			left := [3]bool{}
			for _, i := range order {
				leave[i](m.ctx)
				left[i] = true
				// A file may be in use by who came before it was dropped.
				for k, f := range files {
					inUse := false
					for r := 0; r <= k; r++ {
						inUse = inUse || !left[r]
					}
					if f.id.isReleased() == inUse {
						t.Errorf("with readers gone %v: file %d released: %t", left, k, f.id.isReleased())
					}
				}
			}
			if !m.readers.idle() {
				t.Error("all readers have left, and something is pending")
			}
			r := trapMM{m.saveAndRestore()}
			r.check()
			r.mustLoad(m.base+1<<20, "saved")
			id := replacementOf(m.w, m.w.ids, kept.id)
			if n := id.count(); n != 2 {
				t.Errorf("the file that was saved has %d references", n)
			}
		})
	}
}
