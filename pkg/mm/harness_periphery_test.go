package mm

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/usage"
	"gvisor.dev/gvisor/pkg/usermem"
)

func TestSaveAndRestoreKeepsMemory(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 4*pageSize)
	anon := m.mustMap(4*pageSize, hostarch.ReadWrite)
	file := m.mustMap(4*pageSize, hostarch.ReadWrite, sharedFile(f, 0))
	if _, err := m.CopyOut(m.ctx, anon+pageSize, []byte("anonymous"), usermem.IOOpts{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.CopyOut(m.ctx, file+pageSize, []byte("of a file"), usermem.IOOpts{}); err != nil {
		t.Fatal(err)
	}
	m.SetArgvStart(17)
	m.SetAuxv(arch.Auxv{{Key: 1, Value: 2}})
	m.EnableMembarrierRSeq()
	m.SetDumpability(RootDumpable)
	maps := m.maps()

	r := m.saveAndRestore()
	r.check()
	if got := r.maps(); got != maps {
		t.Errorf("maps are\n%s\nand were\n%s", got, maps)
	}
	for addr, want := range map[hostarch.Addr]string{anon + pageSize: "anonymous", file + pageSize: "of a file"} {
		got := make([]byte, len(want))
		if _, err := r.CopyIn(r.ctx, addr, got, usermem.IOOpts{}); err != nil || string(got) != want {
			t.Errorf("at %#x is %q, %v; want %q", addr, got, err, want)
		}
	}
	if r.ArgvStart() != 17 || !slices.Equal(r.Auxv(), arch.Auxv{{Key: 1, Value: 2}}) || !r.IsMembarrierRSeqEnabled() || r.IsMembarrierPrivateEnabled() || r.Dumpability() != RootDumpable {
		t.Error("metadata was not restored")
	}
	g := replacementOf(m.w, m.w.maps, f)
	if g == f || len(g.set.registrations()) != 1 || g.set.registrations()[0].MappingSpace != r.MemoryManager {
		t.Errorf("the file's mappings are %v", g.set.dump())
	}
	g.set.truncate(0)
	if _, err := r.CopyIn(r.ctx, file, make([]byte, 1), usermem.IOOpts{}); !linuxerr.Equals(linuxerr.EFAULT, err) {
		t.Errorf("the restored file's truncation was not seen: %v", err)
	}
}

func TestAddressSpaceIOGoesThroughTheHost(t *testing.T) {
	m := newTestMM(t, withASIO)
	addr := m.mustMap(2*pageSize, hostarch.ReadWrite)
	want := []byte("through the host's page tables")
	if _, err := m.CopyOut(m.ctx, addr+pageSize-5, want, usermem.IOOpts{}); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want))
	if _, err := m.CopyIn(m.ctx, addr+pageSize-5, got, usermem.IOOpts{}); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%q, %v", got, err)
	}
	if old, err := m.SwapUint32(m.ctx, addr, 5, usermem.IOOpts{}); old != 0 || err != nil {
		t.Fatalf("SwapUint32: %d, %v", old, err)
	}
	if v, err := m.loadUint32(addr); v != 5 || err != nil {
		t.Fatalf("the application sees %d, %v", v, err)
	}
}

func TestForkCopiesMetadata(t *testing.T) {
	m := newTestMM(t)
	m.SetArgvStart(1)
	m.SetArgvEnd(2)
	m.SetEnvvStart(3)
	m.SetEnvvEnd(4)
	m.SetVDSOSigReturn(5)
	m.SetAuxv(arch.Auxv{{Key: 6, Value: 7}})
	m.SetDumpability(NotDumpable)
	m.EnableMembarrierPrivate()
	child := m.fork()
	if child.ArgvStart() != 1 || child.ArgvEnd() != 2 || child.EnvvStart() != 3 || child.EnvvEnd() != 4 || child.VDSOSigReturn() != 5 || child.Dumpability() != NotDumpable {
		t.Error("the child has other metadata")
	}
	if child.IsMembarrierPrivateEnabled() || child.Executable() != nil {
		t.Error("the child has what is not inherited")
	}
	auxv := child.Auxv()
	auxv[0].Value = 8
	if m.Auxv()[0].Value != 7 || child.Auxv()[0].Value != 7 {
		t.Error("writing to a returned vector changes it")
	}
}

func TestMapsText(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, 16*pageSize)
	f.id.name, f.id.dev, f.id.ino = "/tmp/a\nb", 8<<20|1, 4711
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(0x10000), named("[heap]"))
	m.mustMap(2*pageSize, hostarch.NoAccess, fixedAt(0x20000))
	m.mustMap(pageSize, hostarch.ReadExecute, fixedAt(0x7f0000000000), sharedFile(f, 3*pageSize))
	fr, err := m.mf.Allocate(2*pageSize, pgalloc.AllocOpts{Kind: usage.System})
	if err != nil {
		t.Fatal(err)
	}
	special := NewSpecialMappable("[vdso]", m.mf, fr)
	defer special.DecRef(m.ctx)
	m.mustMap(pageSize, hostarch.Read, fixedAt(0x7f0000010000), func(o *memmap.MMapOpts) {
		o.Mappable, o.MappingIdentity, o.Offset = special, special, pageSize
	})
	want := `00010000-00011000 rw-p 00000000 00:00 0                                  [heap]
00020000-00022000 ---p 00000000 00:00 0 
7f0000000000-7f0000001000 r-xs 00003000 08:01 4711                       /tmp/a\012b
7f0000010000-7f0000011000 r--p 00000000 00:00 0                          [vdso]
ffffffffff600000-ffffffffff601000 r-xp 00000000 00:00 0                  [vsyscall]
`
	if got := m.maps(); got != want {
		t.Errorf("maps are\n%s\nwant\n%s", got, want)
	}
}

func TestSmapsText(t *testing.T) {
	m := newTestMM(t)
	addr := m.mustMap(4*pageSize, hostarch.ReadWrite, fixedAt(0x10000), locked(memmap.MLockLazy), func(o *memmap.MMapOpts) {
		o.MaxPerms = hostarch.AnyAccess
	})
	m.mustFault(addr, pageSize, hostarch.Write)
	rss := m.residentBytes(rangeAt(addr, 4*pageSize)) / 1024
	got := m.smaps()
	for _, want := range []string{
		"Size:                 16 kB\n",
		fmt.Sprintf("Rss:            %8d kB\n", rss),
		fmt.Sprintf("Private_Dirty:  %8d kB\n", rss),
		"Private_Clean:         0 kB\n",
		fmt.Sprintf("Anonymous:      %8d kB\n", rss),
		"Private_Hugetlb:       0 kB\n",
		fmt.Sprintf("Locked:         %8d kB\n", rss),
		"VmFlags: rd wr mr mw me lo lf ac \n",
		"[vsyscall]\nSize:                  4 kB\nRss:                   0 kB\n",
		"MMUPageSize:           4 kB\nLocked:                0 kB\nVmFlags: rd ex \n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("smaps lack %q:\n%s", want, got)
		}
	}
}

// smapsHead and smapsSize find what TestSmapsEntriesAreOrderedAndRight checks.
var (
	smapsHead = regexp.MustCompile(`^([0-9a-f]{8,})-([0-9a-f]{8,}) `)
	smapsSize = regexp.MustCompile(`^(Size|Rss|Anonymous): +(\d+) kB$`)
)

func TestSmapsEntriesAreOrderedAndRight(t *testing.T) {
	m := newTestMM(t)
	m.as.lax = true
	const pages = 64
	base := m.mustMap(pages*pageSize, hostarch.ReadWrite, fixedAt(m.base), populated)
	stop := make(chan struct{})
	writer := spawn(t, "writer", func() error {
		// All of the range is mapped all the time. What changes is where the seams
		// are, and which parts have pages.
		for i := uint64(0); ; i++ {
			select {
			case <-stop:
				return nil
			default:
			}
			a := base + hostarch.Addr(i*7%pages*pageSize)
			n := min(8*pageSize, uint64(base+pages*pageSize-a))
			perms, name := hostarch.ReadWrite, "[full]"
			if i%2 == 0 {
				perms, name = hostarch.NoAccess, "[empty]"
			}
			if _, err := m.mmap(n, perms, fixedAt(a), populated, named(name)); err != nil {
				return err
			}
		}
	})
	for range 300 {
		var end, size, covered uint64
		var empty bool
		for line := range strings.Lines(m.smaps()) {
			line = strings.TrimSuffix(line, "\n")
			if h := smapsHead.FindStringSubmatch(line); h != nil {
				start, _ := strconv.ParseUint(h[1], 16, 64)
				if start < end {
					t.Fatalf("%q overlaps what was before it", line)
				}
				end, _ = strconv.ParseUint(h[2], 16, 64)
				empty = strings.HasSuffix(line, "[empty]")
				if start >= uint64(base) && end <= uint64(base)+pages*pageSize {
					covered += end - start
				}
			}
			if v := smapsSize.FindStringSubmatch(line); v != nil {
				n, _ := strconv.ParseUint(v[2], 10, 64)
				if v[1] == "Size" {
					size = n
				}
				switch {
				case v[1] == "Size":
				case n > size:
					t.Fatalf("%s of a mapping of %d kB", line, size)
				case n != 0 && empty:
					t.Fatalf("%s of a mapping that never has pages", line)
				}
			}
		}
		if covered != pages*pageSize {
			t.Fatalf("%#x bytes of %#x that are always mapped are shown", covered, pages*pageSize)
		}
	}
	close(stop)
	writer.mustSucceed()
}

func TestSpecialMappableOwnsItsPages(t *testing.T) {
	m := newTestMM(t)
	fr, err := m.mf.Allocate(2*pageSize, pgalloc.AllocOpts{Kind: usage.System})
	if err != nil {
		t.Fatal(err)
	}
	fillFile(t, m.mf, fr.Start, []byte("special"))
	s := NewSpecialMappable("[x]", m.mf, fr)
	addr := m.mustMap(3*pageSize, hostarch.Read, func(o *memmap.MMapOpts) {
		o.Mappable, o.MappingIdentity, o.Private = s, s, false
	})
	s.DecRef(m.ctx)
	if !s.TryIncRef() {
		t.Fatal("the mapping holds no reference")
	}
	s.DecRef(m.ctx)
	got := make([]byte, 7)
	if _, err := m.CopyIn(m.ctx, addr, got, usermem.IOOpts{}); err != nil || string(got) != "special" {
		t.Errorf("%q, %v", got, err)
	}
	if err := m.fault(addr+2*pageSize, hostarch.Read); err == nil {
		t.Error("an access beyond the end succeeded")
	}
	m.mustUnmap(addr, 3*pageSize)
	if s.TryIncRef() {
		t.Error("a released object was referenced again")
	}
	if n := refsOf(m.mf, fr.Start); n != 0 {
		t.Errorf("the pages have %d references after the last one on their owner was dropped", n)
	}
}

func TestAIOContextQueue(t *testing.T) {
	m := newTestMM(t)
	if _, err := m.NewAIOContext(m.ctx, 0); !linuxerr.Equals(linuxerr.EINVAL, err) {
		t.Errorf("a context for no requests: %v", err)
	}
	id, err := m.NewAIOContext(m.ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	c, ok := m.LookupAIOContext(m.ctx, id)
	if !ok || c.Prepare() != nil || c.Prepare() != nil {
		t.Fatal("two requests were to fit")
	}
	if err := c.Prepare(); !linuxerr.Equals(linuxerr.EAGAIN, err) {
		t.Errorf("a third request: %v", err)
	}
	if _, ok := c.PopRequest(); ok {
		t.Error("there is a result already")
	}
	c.FinishRequest("first")
	c.FinishRequest("second")
	<-c.WaitChannel()
	for _, want := range []string{"first", "second"} {
		if got, ok := c.PopRequest(); !ok || got != want {
			t.Errorf("%v, %t; want %q", got, ok, want)
		}
	}
	if c.Prepare() != nil || c.Prepare() != nil {
		t.Error("the requests whose results were taken still count")
	}
	if m.DestroyAIOContext(m.ctx, id) != c || !c.Dead() {
		t.Fatal("not destroyed")
	}
	ch := c.WaitChannel()
	c.CancelPendingRequest()
	c.FinishRequest("last")
	<-ch // the token for it
	c.Drain()
	if _, open := <-ch; open || c.WaitChannel() != nil {
		t.Error("waiters do not learn that nothing is outstanding")
	}
	if err := c.Prepare(); !linuxerr.Equals(linuxerr.EINVAL, err) {
		t.Errorf("a request to a dead context: %v", err)
	}
	if _, _, ok := m.vmaAt(hostarch.Addr(id)); ok {
		t.Error("the ring is still mapped")
	}
}

func TestIoDestroyOfOtherMemoryDoesNothing(t *testing.T) {
	m := newTestMM(t)
	addr := m.mustMap(pageSize, hostarch.ReadWrite)
	before := m.capture()
	if m.DestroyAIOContext(m.ctx, uint64(addr)) != nil {
		t.Error("there was no context to destroy")
	}
	m.mustBeUnchanged(before)
}

func TestAIOContextMovesWithItsRing(t *testing.T) {
	m := newTestMM(t)
	id, err := m.NewAIOContext(m.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := m.LookupAIOContext(m.ctx, id)
	child := m.fork()
	move := func(m *testMM) error {
		_, err := m.MRemap(m.ctx, hostarch.Addr(id), pageSize, pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: m.base})
		return err
	}
	if err := move(child); !linuxerr.Equals(linuxerr.EINVAL, err) {
		t.Errorf("moving the ring in a forked child: %v", err)
	}
	if err := move(m); err != nil {
		t.Fatal(err)
	}
	if _, ok := m.LookupAIOContext(m.ctx, id); ok {
		t.Error("the old name is still known")
	}
	if got, ok := m.LookupAIOContext(m.ctx, uint64(m.base)); !ok || got != c {
		t.Error("the new name is not known")
	}
}

func TestAIORingLostThenReused(t *testing.T) {
	m := newTestMM(t)
	id, err := m.NewAIOContext(m.ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	old, _ := m.LookupAIOContext(m.ctx, id)
	m.mustUnmap(hostarch.Addr(id), pageSize)
	if _, ok := m.LookupAIOContext(m.ctx, id); ok {
		t.Error("a context is found whose ring is gone")
	}
	again, err := m.NewAIOContext(m.ctx, 1)
	if err != nil || again != id {
		t.Fatalf("%#x, %v; want %#x", again, err, id)
	}
	if c, ok := m.LookupAIOContext(m.ctx, id); !ok || c == old || old.Dead() {
		t.Error("the name should mean the new context, and the old one live on without one")
	}
}

func TestAIOContextSurvivesSave(t *testing.T) {
	m := newTestMM(t)
	id, err := m.NewAIOContext(m.ctx, 2)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := m.LookupAIOContext(m.ctx, id)
	c.Prepare()
	c.FinishRequest("done")
	r := m.saveAndRestore()
	c, ok := r.LookupAIOContext(r.ctx, id)
	if !ok {
		t.Fatal("the context is gone")
	}
	<-c.WaitChannel()
	if got, ok := c.PopRequest(); !ok || got != "done" {
		t.Errorf("%v, %t", got, ok)
	}
	// It still knows its ring.
	if _, err := r.MRemap(r.ctx, hostarch.Addr(id), pageSize, pageSize, MRemapOpts{Move: MRemapMustMove, NewAddr: r.base}); err != nil {
		t.Error(err)
	}
}
