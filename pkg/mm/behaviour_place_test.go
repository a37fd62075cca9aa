package mm

import (
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/errors"
	"gvisor.dev/gvisor/pkg/errors/linuxerr"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/limits"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// Claims: MMap refuses what mmap(2) refuses, with the same errors, and puts mappings
// where Linux does: at a hint if that is free, away from what grows down, below 2 GiB
// for MAP_32BIT, and at huge page borders where that helps.

// mustFailWith fails the test unless err is want.
func mustFailWith(t testing.TB, what string, err error, want *errors.Error) {
	t.Helper()
	if !linuxerr.Equals(want, err) {
		t.Errorf("%s: %v; want %v", what, err, want)
	}
}

func TestMmapRefusesNonsense(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base))
	set := func(change func(*memmap.MMapOpts)) mmapMod { return change }
	for _, c := range []struct {
		what string
		n    uint64
		mods []mmapMod
		want *errors.Error
	}{
		{"length 0", 0, nil, linuxerr.EINVAL},
		{"a length that overflows", ^uint64(0), nil, linuxerr.ENOMEM},
		{"more than there are addresses", 1 << 47, nil, linuxerr.ENOMEM},
		{"an unaligned fixed address", pageSize, []mmapMod{fixedAt(m.base + 1)}, linuxerr.EINVAL},
		{"an unaligned offset", pageSize, []mmapMod{sharedFile(f, 1)}, linuxerr.EINVAL},
		{"an offset that overflows", 2 * pageSize, []mmapMod{sharedFile(f, ^uint64(0)&^(pageSize-1))}, linuxerr.EOVERFLOW},
		{"more than may be allowed", pageSize, []mmapMod{maxPerms(hostarch.Read)}, linuxerr.EACCES},
		{"below the lowest address", pageSize, []mmapMod{fixedAt(0)}, linuxerr.EPERM},
		{"beyond the highest address", 2 * pageSize, []mmapMod{fixedAt(m.layout.MaxAddr - pageSize)}, linuxerr.ENOMEM},
		{"what is mapped", 2 * pageSize, []mmapMod{noReplaceAt(m.base - pageSize)}, linuxerr.EEXIST},
		{"to replace without being fixed", pageSize, []mmapMod{set(func(o *memmap.MMapOpts) { o.Unmap = true })}, linuxerr.EINVAL},
		{"not to replace without being fixed", pageSize, []mmapMod{set(func(o *memmap.MMapOpts) { o.NoReplace = true })}, linuxerr.EINVAL},
		{"to replace and not to", pageSize, []mmapMod{fixedAt(m.base), set(func(o *memmap.MMapOpts) { o.NoReplace = true })}, linuxerr.EINVAL},
		{"a file that grows down", pageSize, []mmapMod{sharedFile(f, 0), growsDown}, linuxerr.EINVAL},
		{"/dev/zero that grows down", pageSize, []mmapMod{set(func(o *memmap.MMapOpts) { o.MappingIdentity = f.id }), growsDown}, linuxerr.EINVAL},
	} {
		before := m.capture()
		_, err := m.mmap(c.n, hostarch.ReadWrite, c.mods...)
		mustFailWith(t, c.what, err, c.want)
		m.mustBeUnchanged(before)
	}
	m.check()
}

func TestMmapRoundsToPages(t *testing.T) {
	m := newTestMM(t)
	addr := m.mustMap(1, hostarch.Read, hintAt(m.base+17))
	if ar, err := m.FindVMARange(addr); err != nil || ar != rangeAt(m.base, pageSize) {
		t.Fatalf("mapped %v, %v", ar, err)
	}
}

func TestHintIsTakenOnlyIfFree(t *testing.T) {
	m := newTestMM(t)
	if addr := m.mustMap(4*pageSize, hostarch.Read, hintAt(m.base)); addr != m.base {
		t.Errorf("the first got %#x", addr)
	}
	for _, hint := range []hostarch.Addr{m.base, m.base + 3*pageSize, m.base - 3*pageSize, 0, m.layout.MaxAddr - pageSize} {
		addr := m.mustMap(4*pageSize, hostarch.Read, hintAt(hint))
		if addr == hint || addr+4*pageSize > m.layout.TopDownBase {
			t.Errorf("for the hint %#x, which cannot be taken, there is a mapping at %#x", hint, addr)
		}
	}
	m.check()
}

func TestTopDownTakesTheHighestHole(t *testing.T) {
	m := newTestMM(t)
	a := m.mustMap(3*pageSize, hostarch.Read)
	b := m.mustMap(pageSize, hostarch.Read)
	if a != m.layout.TopDownBase-3*pageSize || b != a-pageSize {
		t.Errorf("mapped %#x and %#x below %#x", a, b, m.layout.TopDownBase)
	}
	m.mustUnmap(a, pageSize)
	if c := m.mustMap(2*pageSize, hostarch.Read); c != b-2*pageSize {
		t.Errorf("two pages are at %#x, where there is room for one", c)
	}
	if c := m.mustMap(pageSize, hostarch.Read); c != a {
		t.Errorf("one page is at %#x; there is a hole at %#x", c, a)
	}
}

func TestBottomUpTakesTheLowestHole(t *testing.T) {
	m := newTestMM(t, bottomUp)
	a := m.mustMap(3*pageSize, hostarch.Read)
	b := m.mustMap(pageSize, hostarch.Read)
	if a != m.layout.BottomUpBase || b != a+3*pageSize {
		t.Errorf("mapped %#x and %#x above %#x", a, b, m.layout.BottomUpBase)
	}
}

func TestTopDownFallsBackToBottomUp(t *testing.T) {
	// Linux: arch_get_unmapped_area_topdown tries upwards if nothing is left below.
	m := newTestMM(t, withLayout(func(l *arch.MmapLayout) {
		l.TopDownBase = l.MinAddr + 4*pageSize
		l.BottomUpBase = l.MinAddr + 8*pageSize
	}))
	m.mustMap(4*pageSize, hostarch.Read)
	if addr, err := m.mmap(pageSize, hostarch.Read); err != nil || addr < m.layout.BottomUpBase {
		t.Errorf("with nothing left below, there is a mapping at %#x, %v", addr, err)
	}
}

func TestMap32BitIsBelow2GiB(t *testing.T) {
	m := newTestMM(t)
	low := func(o *memmap.MMapOpts) { o.Map32Bit = true }
	a := m.mustMap(pageSize, hostarch.Read, low)
	b := m.mustMap(pageSize, hostarch.Read, low, hintAt(m.base+1<<40))
	if a != low32Start || b != a+pageSize {
		t.Errorf("mapped %#x and %#x", a, b)
	}
	_, err := m.mmap(low32End-low32Start, hostarch.Read, low)
	mustFailWith(t, "more than there is", err, linuxerr.ENOMEM)
	if c := m.mustMap(pageSize, hostarch.Read, low, fixedAt(m.base)); c != m.base {
		t.Errorf("MAP_FIXED is at %#x", c)
	}
}

func TestNothingIsPutCloseBelowWhatGrowsDown(t *testing.T) {
	//	|   free   |- guard gap -|-- grows down --|
	m := newTestMM(t)
	stack := m.base + 1<<20
	stack += guardGap
	m.mustMap(4*pageSize, hostarch.ReadWrite, growsDown, fixedAt(stack))
	if addr := m.mustMap(pageSize, hostarch.Read, hintAt(stack-guardGap)); addr == stack-guardGap {
		t.Errorf("a hint in the guard gap was taken")
	}
	if addr := m.mustMap(pageSize, hostarch.Read, hintAt(stack-guardGap-pageSize)); addr != stack-guardGap-pageSize {
		t.Errorf("a hint below the guard gap was not taken, but %#x", addr)
	}
	if addr := m.mustMap(pageSize, hostarch.Read, fixedAt(stack-pageSize)); addr != stack-pageSize {
		t.Errorf("MAP_FIXED in the guard gap is at %#x", addr)
	}
	m.mustUnmap(stack-pageSize, pageSize)
	if addr := m.mustMap(pageSize, hostarch.Read, noReplaceAt(stack-2*pageSize)); addr != stack-2*pageSize {
		t.Errorf("MAP_FIXED_NOREPLACE in the guard gap is at %#x", addr)
	}

	top := newTestMM(t)
	top.mustMap(pageSize, hostarch.ReadWrite, growsDown, fixedAt(top.layout.TopDownBase-pageSize))
	if addr := top.mustMap(pageSize, hostarch.Read); addr != top.layout.TopDownBase-pageSize-guardGap-pageSize {
		t.Errorf("below a stack at the top, a mapping is at %#x", addr)
	}
}

func TestHugeLengthsAreAlignedToHugePages(t *testing.T) {
	m := newTestMM(t)
	f := newTestMappable(t, m.mf, pageSize)
	const huge = hostarch.HugePageSize
	m.mustMap(pageSize, hostarch.Read) // so that the next address is not aligned by itself
	for _, c := range []struct {
		what    string
		aligned bool
		n       uint64
		mods    []mmapMod
	}{
		{"anonymous", true, 2 * huge, nil},
		{"private file", true, huge, []mmapMod{privateFile(f, 0)}},
		{"an odd length", false, huge + pageSize, nil},
		{"shared file", false, huge, []mmapMod{sharedFile(f, 0)}},
		{"a stack", false, huge, []mmapMod{func(o *memmap.MMapOpts) { o.Stack = true }}},
		{"grows down", false, huge, []mmapMod{growsDown}},
	} {
		addr := m.mustMap(c.n, hostarch.Read, c.mods...)
		if aligned := addr&(huge-1) == 0; aligned != c.aligned {
			t.Errorf("%s: mapped at %#x", c.what, addr)
		}
		m.mustMap(pageSize, hostarch.Read)
	}
}

func TestForceMapsOutsideOfTheLayout(t *testing.T) {
	m := newTestMM(t)
	addr := m.layout.MinAddr - pageSize
	force := func(o *memmap.MMapOpts) { o.Force = true }
	if got := m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(addr), force); got != addr {
		t.Fatalf("mapped at %#x", got)
	}
	m.mustFault(addr, pageSize, hostarch.Write)
	m.check()

	// What lies partly there is unmapped from the host as a whole.
	m.mustMap(pageSize, hostarch.ReadWrite, fixedAt(m.layout.MinAddr))
	m.mustFault(m.layout.MinAddr, pageSize, hostarch.Write)
	m.mustUnmap(addr, 2*pageSize)
	if got := m.as.mappedPages(everywhere); got != 0 {
		t.Errorf("%#x bytes are mapped after munmap", got)
	}
	m.check()
}

func TestMapStack(t *testing.T) {
	for _, c := range []struct{ limit, want uint64 }{
		{limits.Infinity, 33 * pageSize}, {8 << 20, 33 * pageSize}, {3 * pageSize, 3 * pageSize}, {3*pageSize - 1, 3 * pageSize},
	} {
		m := newTestMM(t)
		m.ctx.limit(limits.Stack, c.limit)
		ar, err := m.MapStack(m.ctx)
		if err != nil || uint64(ar.Length()) != c.want {
			t.Fatalf("RLIMIT_STACK %#x: stack %v, %v", c.limit, ar, err)
		}
		v, whole, _ := m.vmaAt(ar.Start)
		if whole != ar || !v.growsDown || v.name != "[stack]" || v.realPerms != hostarch.ReadWrite || !v.private {
			t.Errorf("RLIMIT_STACK %#x: %v is %+v", c.limit, whole, v)
		}
		if uint64(m.layout.MaxAddr-ar.End) >= m.layout.MaxStackRand || ar.End > m.layout.MaxAddr {
			t.Errorf("RLIMIT_STACK %#x: the stack ends at %#x", c.limit, ar.End)
		}
		if limit := ar.End - hostarch.Addr(min(c.limit+pageSize-1, 1<<30)&^(pageSize-1)); m.fault(limit, hostarch.Write) != nil && c.limit%pageSize == 0 {
			t.Errorf("RLIMIT_STACK %#x: the stack does not grow to %#x", c.limit, limit)
		}
	}
	m := newTestMM(t)
	m.ctx.limit(limits.Stack, 0)
	_, err := m.MapStack(m.ctx)
	mustFailWith(t, "RLIMIT_STACK 0", err, linuxerr.ENOMEM)
}

func TestBrk(t *testing.T) {
	m := newTestMM(t)
	start := m.base + 0x123 // programs end anywhere
	m.BrkSetup(m.ctx, start)
	step := func(what string, to, want hostarch.Addr, wantErr *errors.Error, mapped uint64) {
		t.Helper()
		got, err := m.Brk(m.ctx, to)
		if got != want || wantErr == nil && err != nil || wantErr != nil && !linuxerr.Equals(wantErr, err) {
			t.Errorf("%s: brk(%#x) = %#x, %v; want %#x", what, to, got, err, want)
		}
		if n := m.VirtualMemorySize(); n != mapped {
			t.Errorf("%s: %#x bytes are mapped, want %#x", what, n, mapped)
		}
		m.check()
	}
	step("below", start-1, start, linuxerr.EINVAL, 0)
	step("within the first page", m.base+pageSize, m.base+pageSize, nil, 0)
	step("a byte more", m.base+pageSize+1, m.base+pageSize+1, nil, pageSize)
	step("the same page", m.base+2*pageSize, m.base+2*pageSize, nil, pageSize)
	m.mustFault(m.base+pageSize, pageSize, hostarch.Write)
	if maps := m.maps(); !strings.Contains(maps, " rw-p ") || !strings.Contains(maps, " [heap]\n") {
		t.Errorf("the heap is shown as\n%s", maps)
	}
	m.mustMap(pageSize, hostarch.Read, fixedAt(m.base+5*pageSize))
	step("into another mapping", m.base+6*pageSize, m.base+2*pageSize, linuxerr.ENOMEM, 2*pageSize)
	step("up to it", m.base+5*pageSize, m.base+2*pageSize, linuxerr.ENOMEM, 2*pageSize) // Linux 6.18
	step("up to a page below it", m.base+4*pageSize, m.base+4*pageSize, nil, 4*pageSize)
	step("down", start, start, nil, pageSize)
	step("beyond all addresses", ^hostarch.Addr(0), start, linuxerr.EFAULT, pageSize)
	if m.residentBytes(rangeAt(m.base, 5*pageSize)) != 0 {
		t.Error("what brk gave up is resident")
	}

	step("up", m.base+4*pageSize, m.base+4*pageSize, nil, 4*pageSize)
	m.mustUnmap(m.base+2*pageSize, 2*pageSize)
	step("down where nothing is left", m.base+2*pageSize, m.base+4*pageSize, linuxerr.ENOMEM, 2*pageSize) // Linux 6.18
	step("down further", start, start, nil, pageSize)

	// A new heap takes the place of the old one.
	step("up", m.base+4*pageSize, m.base+4*pageSize, nil, 4*pageSize)
	m.BrkSetup(m.ctx, m.base+1<<20)
	if m.VirtualMemorySize() != pageSize {
		t.Errorf("after BrkSetup %#x bytes are mapped", m.VirtualMemorySize())
	}
}

// A stack has all the room that its limit allows: mappings whose place the kernel chooses are below that, in
// whatever layout the program got.
func TestStackKeepsItsRoom(t *testing.T) {
	for _, limit := range []uint64{8 << 20, 512 << 20} {
		m := newTestMM(t)
		m.ctx.limit(limits.Stack, limit)
		ends := map[hostarch.Addr]bool{}
		const layouts = 200
		for range layouts {
			l, err := (&arch.Context64{}).NewMmapLayout(0x10000, 0x7ffffffff000, limits.FromContext(m.ctx))
			if err != nil {
				t.Fatal(err)
			}
			m.layout = l
			stack, err := m.MapStack(m.ctx)
			if err != nil {
				t.Fatal(err)
			}
			ends[stack.End] = true
			if stack.End < l.TopDownBase+hostarch.Addr(limit) {
				t.Fatalf("with %#x bytes of stack below %#x, others are placed below %#x", limit, stack.End, l.TopDownBase)
			}
			m.mustUnmap(stack.Start, uint64(stack.Length()))
		}
		if len(ends) < layouts*9/10 {
			t.Errorf("stacks end at %d of %d addresses", len(ends), layouts)
		}
	}
}
