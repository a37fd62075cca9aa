// More of the traps: moments and places where the tests that have their names do not
// look. Each of these, and of those in traps_queue_test.go, was written because one part
// of a protection could be taken out without a test noticing, or only by chance.

package mm

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/kernel/shm"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/state"
	"gvisor.dev/gvisor/pkg/usermem"
)

// The key that is there already can be that of a part of the new mapping, behind
// something else.
//
//	old |reserved|-- f, from page 1 --|
//	new |------- f, from page 0 ------|
func TestFixedOverPartWithSameKey(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, 3*pageSize)
	m.mustMap(pageSize, hostarch.NoAccess, fixedAt(m.base))
	m.mustMap(2*pageSize, hostarch.ReadWrite, fixedAt(m.base+pageSize), sharedFile(f, pageSize), populated)
	m.mustMap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
	m.mustStillBeTold(f, m.base, 3*pageSize, 0)
}

// Memory that is about to be replaced need not have pages when the new file is asked,
// nor need anybody have access to those that it has.
func TestTruncateAfterAskKeepsPagesMadeLaterOrOutOfReach(t *testing.T) {
	for name, c := range map[string]struct{ before, after func(m trapMM) }{
		"written to after the file was asked": {
			before: func(m trapMM) { m.Decommit(m.base, pageSize) },
			after:  func(m trapMM) { m.mustStore(m.base, "not the file's") },
		},
		"without access": {
			before: func(m trapMM) {
				m.mustStore(m.base, "not the file's")
				if err := m.MProtect(m.base, pageSize, hostarch.NoAccess, false); err != nil {
					m.t.Fatal(err)
				}
			},
			after: func(m trapMM) {},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f := newTestMappable(t, m.mf, pageSize)
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base))
			c.before(m)
			p := f.id.pauseAt("IncRef", 1) // by the vma, once its Mappable was asked
			replace := spawn(t, "replacement", func() error {
				_, err := m.mmap(pageSize, hostarch.Read, fixedAt(m.base), sharedFile(f, 0))
				return err
			})
			p.wait()
			c.after(m)
			f.set.truncate(0)
			// A debugger reads what nobody else has access to.
			got := make([]byte, 14)
			if _, err := m.CopyIn(m.ctx, m.base, got, usermem.IOOpts{IgnorePermissions: true}); err != nil || string(got) != "not the file's" {
				t.Errorf("the old memory has %q, %v", got, err)
			}
			p.resume()
			replace.mustSucceed()
			m.check()
		})
	}
}

// A mapping that must be populated is published before it is, and has pages from then
// on: what its file invalidates is gone when that returns.
func TestInvalidateOfRequiredMappingReachesIt(t *testing.T) {
	m := newTrapMM(t)
	f, g := newTestMappable(t, m.mf, pageSize), newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0))
	p := f.pauseAt("RemoveMapping", 1)
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(g, 0), populated, required)
		return err
	})
	p.wait()
	if !m.storeWithoutFault(m.base, "before") {
		t.Fatal("the test is wrong: the new mapping is not populated yet")
	}
	g.set.replace(memmap.MappableRange{End: pageSize})
	if m.storeWithoutFault(m.base, "stale!") {
		t.Error("a thread still writes to the page that was replaced")
	}
	p.resume()
	replace.mustSucceed()
	m.check()
	m.mustLoad(m.base, zeroes(6))
}

// The same where populating has made private copies: what their file no longer has is
// gone from these, too.
func TestTruncateOfNewPrivateMappingDuringRemoveReachesIt(t *testing.T) {
	truncateOverOld(t, privateFile)
}

// Whatever the old mapping was. Over a shared one there is no other reason for a space of
// its own, which tells what the new file has cut off from what the old one has.
func TestTruncateOfPrivateMappingOverSharedReachesIt(t *testing.T) {
	truncateOverOld(t, sharedFile)
}

// truncateOverOld replaces a mapping of a file, of the kind old, by private copies of
// another file, and has that one truncated before the old mapping is deregistered.
func truncateOverOld(t *testing.T, old func(*testMappable, uint64) mmapMod) {
	m := newTrapMM(t)
	f, g := newTestMappable(t, m.mf, pageSize), newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), old(f, 0))
	p := f.pauseAt("RemoveMapping", 1)
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(g, 0), committedNow)
		return err
	})
	p.wait()
	if !m.storeWithoutFault(m.base, "before") {
		t.Fatal("the test is wrong: there is no private copy yet")
	}
	g.set.truncate(0)
	if _, ok := m.loadWithoutFault(m.base, 6); ok {
		t.Error("a thread still reads the page that was cut off")
	}
	p.resume()
	replace.mustSucceed()
	m.check()
	m.mustGetSIGBUS(m.base)
}

// A mapping that must be populated keeps its range frozen though nothing was there. Then
// there is no old file either whose invalidations could be meant.
func TestTruncateOfRequiredMappingInHoleReachesIt(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	p := m.as.pauseAt("MapFile", 1)
	mmap := spawn(t, "mmap", func() error {
		_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(m.base), privateFile(f, 0), committedNow, required)
		return err
	})
	p.wait()
	truncate := spawn(t, "truncate", func() error { f.set.truncate(0); return nil })
	truncate.mustBlock() // it is the next to have activeMu
	p.resume()
	truncate.mustSucceed()
	mmap.mustSucceed()
	m.check()
	m.mustGetSIGBUS(m.base)
}

// What the file of a mapping that failed has invalidated was never meant for the
// memory that comes back.
func TestInvalidateOfFailedMappingSparesOldPages(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base))
	m.mustStore(m.base, "not the file's")
	f.fail("Translate", 1, linuxerr.EIO)
	p := f.pauseAt("RemoveMapping", 1) // by the rollback
	failing := spawn(t, "mmap", func() error {
		if _, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated, required); !linuxerr.Equals(linuxerr.EIO, err) {
			return fmt.Errorf("want EIO, got %w", err)
		}
		return nil
	})
	p.wait()
	f.set.truncate(0)
	p.resume()
	failing.mustSucceed()
	m.check()
	m.mustLoad(m.base, "not the file's")
}

// The references that merging freed belong to other files than those that the failed
// mapping took.
//
//	before |-A-|-X-|-A-|
//	new        |-A-|       merges into one, and fails
func TestAbortAfterMergeOverAnotherFile(t *testing.T) {
	m := newTrapMM(t)
	a, x := newTestMappable(t, m.mf, 3*pageSize), newTestMappable(t, m.mf, pageSize)
	m.mustMap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(a, 0))
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+pageSize), sharedFile(x, 0))
	before := m.capture().without("host")
	a.fail("Translate", 1, linuxerr.EIO)
	m.mustFail(pageSize, fixedAt(m.base+pageSize), sharedFile(a, pageSize))
	m.check()
	mustBeEqual(t, before, m.capture().without("host"))
}

// As TestExpandingNeighbourUnmapsOnlyReplaced, where the new mapping is not populated
// and the host unmaps the old pages at once.
func TestExpandingNeighbourWithoutPopulating(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, 3*pageSize)
	m.mustMap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0), populated)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+pageSize), populated)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base+pageSize), sharedFile(f, pageSize))
	for i, want := range []bool{true, false, true} {
		ar := rangeAt(m.base+hostarch.Addr(i)*pageSize, pageSize)
		if got := m.as.mappedPages(ar) != 0; got != want {
			t.Errorf("page %d is mapped: %t; want %t", i, got, want)
		}
	}
	if _, ar, _ := m.vmaAt(m.base); ar != rangeAt(m.base, 3*pageSize) {
		t.Errorf("the new vma did not merge: it is %v", ar)
	}
	m.check()
}

// A frozen range can have become a part of the vma next to it. A fault there takes what
// it finds around it, but nothing of that range.
//
//	old |---f---|---x---|---f---|
//	new         |---f---|         frozen until x has forgotten it
func TestFaultNextToFrozenRangeStaysOutOfIt(t *testing.T) {
	m := newTrapMM(t)
	f, x := newTestMappable(t, m.mf, 3*pageSize), newTestMappable(t, m.mf, pageSize)
	m.mustMap(3*pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
	mid := rangeAt(m.base+pageSize, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(mid.Start), sharedFile(x, 0), populated)
	p := x.pauseAt("RemoveMapping", 1)
	replace := spawn(t, "replacement", func() error {
		_, err := m.mmap(pageSize, hostarch.ReadWrite, fixedAt(mid.Start), sharedFile(f, pageSize))
		return err
	})
	p.wait()
	if _, ar, _ := m.vmaAt(mid.Start); ar != rangeAt(m.base, 3*pageSize) {
		t.Fatalf("the new vma did not merge: it is %v", ar)
	}
	for _, a := range []hostarch.Addr{m.base, mid.End} {
		m.mustStore(a, "next to it")
	}
	if n := m.residentBytes(mid); n != 0 {
		t.Errorf("%#x bytes of pages are in the frozen range", n)
	}
	p.resume()
	replace.mustSucceed()
	m.check()
}

// shmat with SHM_REMAP asks for a fixed address, and the segment's options say no more
// than that.
func TestShmRemapReplacesWhatIsThere(t *testing.T) {
	m := newTrapMM(t)
	s := newSegments(m)
	old, seg := s.create(pageSize), s.create(pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
	for _, next := range []*shm.Shm{old, seg} {
		opts, err := next.ConfigureAttach(s.ctx, m.base, shm.AttachOpts{Remap: true})
		if err != nil {
			t.Fatal(err)
		}
		if addr, err := m.MMap(s.ctx, opts); err != nil || addr != m.base {
			t.Fatalf("attached at %#x, %v; want %#x", addr, err, m.base)
		}
		s.mustBeAttached(next, 1, "after shmat")
	}
	s.mustBeAttached(old, 0, "after another segment took its place")
}

// What the destination's old file invalidates does not concern the pages that are going
// to move there.
func TestInvalidateOfReplacedDestinationSparesSource(t *testing.T) {
	for name, kind := range map[string]func(*testMappable, uint64) mmapMod{"shared": sharedFile, "private": privateFile} {
		t.Run(name, func(t *testing.T) {
			m := newTrapMM(t)
			f, g := newTestMappable(t, m.mf, pageSize), newTestMappable(t, m.mf, pageSize)
			src, dst := m.base, m.base+1<<30
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(src), kind(f, 0))
			m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(dst), privateFile(g, 0))
			m.mustStore(src, "kept")
			p := g.pauseAt("RemoveMapping", 1)
			move := spawn(t, "mremap", func() error { return m.move(rangeAt(src, pageSize), dst) })
			p.wait()
			g.set.truncate(0)
			if n := m.residentBytes(rangeAt(src, pageSize)); n != pageSize {
				t.Errorf("%#x bytes are left at the source", n)
			}
			p.resume()
			move.mustSucceed()
			m.mustLoad(dst, "kept")
			m.check()
		})
	}
}

// The tree that enter returns is not older than the entering: whoever was told that a
// file was released had better not find it.
func TestReaderFindsTheTreeAsOfItsEntering(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
	inHook(t, func() { m.mustUnmap(m.base, pageSize) })
	root, leave := m.enter()
	defer leave(m.ctx)
	if n := root.Len(); n != 0 {
		t.Errorf("a reader that has entered finds %d mappings that were gone before", n)
	}
}

// A generation that has ended may be seen by who loaded it before. Nobody waits for its
// members any more, so nobody may join it.
func TestReaderDoesNotJoinGenerationThatHasEnded(t *testing.T) {
	var g grace
	ended, open := &generation{}, &generation{}
	open.members.Store(1)
	g.current.Store(ended)
	var joined *generation
	reader := spawn(t, "reader", func() error { joined = g.enter(); return nil })
	// It is seen there often, so it has loaded the one that ended, and does not take it.
	for seen := 0; seen < 20; {
		if reader.returned() {
			t.Fatal("the reader has joined it")
		}
		if _, stack := goroutineState(reader.gid); strings.Contains(stack, "grace).enter") {
			seen++
		}
	}
	g.current.Store(open)
	reader.mustSucceed()
	if joined != open || ended.members.Load() != 0 || open.members.Load() != 2 {
		t.Errorf("the ended generation has %d members, the open one %d", ended.members.Load(), open.members.Load())
	}
}

// msync takes as long as the file does. The file stays, and munmap does not wait.
func TestMSyncKeepsTheFileWhileItStores(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
	f.id.close()
	p := f.id.pauseAt("Msync", 1)
	sync := spawn(t, "msync", func() error { return m.MSync(m.ctx, m.base, pageSize, MSyncOpts{Sync: true}) })
	p.wait()
	m.mustUnmap(m.base, pageSize)
	if f.id.isReleased() {
		t.Error("the file was released while it is being stored")
	}
	if !m.readers.idle() {
		t.Error("msync keeps others from releasing files")
	}
	p.resume()
	sync.mustSucceed()
	if !f.id.isReleased() {
		t.Error("msync has returned, and the file is still in use")
	}
}

// A checkpoint that is taken with a reader inside would lose what he is to release.
func TestNoCheckpointWithAReaderInside(t *testing.T) {
	m := newTrapMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.base), sharedFile(f, 0))
	_, leave := m.enter()
	m.mustUnmap(m.base, pageSize)
	var image bytes.Buffer
	if _, err := state.Save(m.ctx, &image, &m.MemoryManager); err == nil {
		t.Error("it was taken")
	}
	leave(m.ctx)
}
