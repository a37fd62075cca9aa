package mm

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// These tests are about the harness: that it sees what it is meant to see.

// spy is a testing.TB that notes failures instead of failing.
type spy struct {
	testing.TB
	errors []string
}

func (s *spy) Errorf(format string, args ...any) { s.errors = append(s.errors, format) }
func (s *spy) Failed() bool                      { return len(s.errors) != 0 }
func (s *spy) Cleanup(func())                    {}

func TestHarnessAnonymousMemoryRoundTrip(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	addr := m.mustMap(4*pageSize, hostarch.ReadWrite)
	want := bytes.Repeat([]byte("0123456789abcdef"), 3*pageSize/16)
	if err := m.store(addr+8, want); err != nil {
		t.Fatal(err)
	}
	got, err := m.load(addr+8, len(want))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read %d bytes (equal: %t), %v", len(got), bytes.Equal(got, want), err)
	}
	if v, err := m.swapUint32(addr+4, 7); v != 0 || err != nil {
		t.Fatalf("swapUint32: %d, %v", v, err)
	}
	if v, err := m.loadUint32(addr + 4); v != 7 || err != nil {
		t.Fatalf("loadUint32: %d, %v", v, err)
	}
	m.mustUnmap(addr, 4*pageSize)
	if _, err := m.load(addr, 1); !linuxerr.Equals(linuxerr.EFAULT, err) {
		t.Fatalf("reading unmapped memory: %v", err)
	}
}

func TestHarnessSeesPermissions(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	addr := m.mustMap(pageSize, hostarch.Read)
	if _, err := m.load(addr, 1); err != nil {
		t.Fatal(err)
	}
	if err := m.store(addr, []byte{1}); err == nil {
		t.Fatal("a read-only page was written to")
	}
}

func TestHarnessForkedChildrenHaveOwnMemory(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	addr := m.mustMap(pageSize, hostarch.ReadWrite)
	if err := m.store(addr, []byte("parent")); err != nil {
		t.Fatal(err)
	}
	child := m.fork()
	if err := child.store(addr, []byte("child!")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		m    *testMM
		want string
	}{{m, "parent"}, {child, "child!"}} {
		if got, err := c.m.load(addr, 6); string(got) != c.want || err != nil {
			t.Errorf("%s has %q, %v; want %q", c.m.name, got, err, c.want)
		}
	}
}

func TestHarnessModelFollowsHost(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 8*pageSize)
	addr := m.mustMap(8*pageSize, hostarch.ReadWrite, sharedFile(f, 0), populated)
	if n := m.as.mappedPages(rangeAt(addr, 8*pageSize)); n != 8*pageSize {
		t.Fatalf("%d bytes are mapped\n%s", n, callString(m.as.history()))
	}
	h, ok := m.as.at(addr + 3*pageSize)
	if !ok || h.file != m.mf || h.fileRange(h.AddrRange).Start != f.set.find(3*pageSize, 1)[0].Start {
		t.Fatalf("page 3 is mapped to %+v", h)
	}
	m.as.forget()
	m.mustUnmap(addr+2*pageSize, 2*pageSize)
	if m.as.mappedPages(rangeAt(addr, 8*pageSize)) != 6*pageSize || len(m.as.history()) == 0 {
		t.Fatalf("after munmap, the host has\n%s", strings.Join(m.as.dump(), "\n"))
	}
}

func TestHarnessFilesAreShared(t *testing.T) {
	m := newTestMM(t, onRealMemory)
	set := newSharedSet(t, m.mf, 2*pageSize)
	f, g := set.newMappable(), set.newMappable()
	a := m.mustMap(2*pageSize, hostarch.ReadWrite, sharedFile(f, 0))
	b := m.mustMap(2*pageSize, hostarch.ReadWrite, sharedFile(g, 0))
	if err := m.store(a+pageSize, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := m.load(b+pageSize, 5); string(got) != "hello" || err != nil {
		t.Fatalf("the other name has %q, %v", got, err)
	}
	if got := set.read(pageSize, 5); string(got) != "hello" {
		t.Fatalf("the file has %q", got)
	}
	set.truncate(pageSize)
	var bus *memmap.BusError
	if _, err := m.load(b+pageSize, 5); !errors.As(err, &bus) {
		t.Fatalf("after truncation: %v", err)
	}
	set.truncate(2 * pageSize)
	if got, err := m.load(a+pageSize, 5); !bytes.Equal(got, make([]byte, 5)) || err != nil {
		t.Fatalf("after growing again: %q, %v", got, err)
	}
	if n := len(set.registrations()); n != 2 {
		t.Fatalf("%d registrations: %v", n, set.dump())
	}
	f.id.close()
	m.mustUnmap(a, 2*pageSize)
	if !f.id.isReleased() {
		t.Fatal("munmap did not release the identity")
	}
}

func TestHarnessCaptureSeesEverything(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	addr := m.mustMap(pageSize, hostarch.ReadWrite, sharedFile(f, 0), populated)
	before := m.capture()
	m.mustBeUnchanged(before)
	m.mustUnmap(addr, pageSize)
	d := diff(before, m.capture())
	for _, want := range []string{"vmas:", "counters:", "pmas:", "host:", "registrations:", "references:"} {
		if !strings.Contains(d, want) {
			t.Errorf("munmap does not show in %s\n%s", want, d)
		}
	}
}

func TestHarnessPausesAndFailures(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	addr := m.mustMap(pageSize, hostarch.ReadWrite, sharedFile(f, 0))
	p := f.pauseAt("RemoveMapping", 1)
	first := spawn(t, "first munmap", func() error { return m.MUnmap(m.ctx, addr, pageSize) })
	p.wait()
	second := spawn(t, "second munmap", func() error { return m.MUnmap(m.ctx, addr, pageSize) })
	second.mustBlock()
	if first.returned() {
		t.Fatal("the paused call returned")
	}
	p.resume()
	first.mustSucceed()
	second.mustSucceed()

	f.fail("AddMapping", 2, linuxerr.ENODEV)
	m.mustMap(pageSize, hostarch.Read, sharedFile(f, 0))
	if _, err := m.mmap(pageSize, hostarch.Read, sharedFile(f, 0)); !linuxerr.Equals(linuxerr.ENODEV, err) {
		t.Fatalf("the second AddMapping was to fail: %v", err)
	}
}

func TestHarnessComplainsAboutMisuse(t *testing.T) {
	mf := newTestFile(t)
	for name, misuse := range map[string]func(s *spy){
		"empty unmap":     func(s *spy) { newRecordingAS(s).Unmap(pageSize, 0) },
		"unaligned unmap": func(s *spy) { newRecordingAS(s).Unmap(1, pageSize) },
		"no permissions": func(s *spy) {
			as := newRecordingAS(s)
			as.lax = true
			as.MapFile(pageSize, mf, memmap.FileRange{End: pageSize}, hostarch.NoAccess, false)
		},
		"free pages": func(s *spy) {
			newRecordingAS(s).MapFile(pageSize, mf, memmap.FileRange{End: pageSize}, hostarch.Read, false)
		},
		"identity used after release": func(s *spy) {
			id := newTestIdentity(s, "x")
			id.close()
			id.DeviceID()
		},
		"mapping removed that is not there": func(s *spy) {
			f := newTestMappable(s, mf, pageSize)
			f.RemoveMapping(nil, newBareMM(), rangeAt(pageSize, pageSize), 0, false)
			worldOf(s).sets[0].takeDown()
		},
		"mapping added twice": func(s *spy) {
			f, mm := newTestMappable(s, mf, pageSize), newBareMM()
			f.AddMapping(nil, mm, rangeAt(pageSize, pageSize), 0, false)
			f.AddMapping(nil, mm, rangeAt(pageSize, pageSize), 0, false)
			f.RemoveMapping(nil, mm, rangeAt(pageSize, pageSize), 0, false)
			worldOf(s).sets[0].takeDown()
		},
	} {
		s := &spy{TB: t}
		if misuse(s); len(s.errors) == 0 {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// newBareMM returns a MappingSpace.
func newBareMM() *MemoryManager { return &MemoryManager{} }

func TestHarnessSeesStaleHostMappings(t *testing.T) {
	m := newTestMM(t)
	addr := m.mustMap(2*pageSize, hostarch.ReadWrite, populated)
	p, ar, page, ok := m.pmaAt(addr)
	if !ok || ar.Length() < 2*pageSize {
		t.Fatal("MAP_POPULATE had no effect")
	}
	if err := m.checkHost(); err != nil {
		t.Fatal(err)
	}
	first := memmap.FileRange{Start: page.Start, End: page.End}
	for what, spoil := range map[string]func(){
		"another page": func() {
			other := memmap.FileRange{Start: page.End, End: page.End + pageSize}
			m.as.MapFile(addr, p.file, other, hostarch.Read, false)
		},
		"no pma": func() { m.as.MapFile(m.base, p.file, first, hostarch.Read, false) },
		"more permissions": func() {
			m.as.MapFile(addr, p.file, first, hostarch.AnyAccess, false)
		},
	} {
		spoil()
		if m.checkHost() == nil {
			t.Errorf("%s: not noticed", what)
		}
		m.as.Unmap(m.base, pageSize)
		m.as.Unmap(addr, pageSize)
	}
}
