package mm

import (
	"bytes"
	goctx "context"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"gvisor.dev/gvisor/pkg/context"
	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/arch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
	"gvisor.dev/gvisor/pkg/sentry/pgalloc"
	"gvisor.dev/gvisor/pkg/sentry/platform"
	"gvisor.dev/gvisor/pkg/state"
)

const pageSize = hostarch.PageSize

// testPlatform is a platform.Platform whose address spaces are recordingAS.
//
// hooks know "NewAddressSpace", and can make it fail.
type testPlatform struct {
	platform.NoCPUPreemptionDetection
	platform.NoCPUNumbers
	hooks
	platformConfig
	w *world
}

// platformConfig is what a testPlatform is like.
type platformConfig struct {
	real    bool // its address spaces have memory behind them
	asio    bool
	mapUnit uint64

	// ownThreads is set if each context has threads of its own on the host.
	ownThreads bool

	// app is where the address spaces begin and end, if they are real; it is
	// chosen by the first of them.
	app hostarch.AddrRange
}

func newTestPlatform(t testing.TB, config platformConfig) *testPlatform {
	p := &testPlatform{platformConfig: config, w: worldOf(t)}
	p.hooks.t, p.hooks.name = t, p.w.name(p, "platform")
	return p
}

// NewAddressSpace implements platform.Platform.
func (p *testPlatform) NewAddressSpace() (platform.AddressSpace, error) {
	if err := p.hit("NewAddressSpace", nil); err != nil {
		return nil, err
	}
	as := newRecordingAS(p.w.t)
	if p.real {
		as.real = newRealAS(p.w.t, p.app)
		p.app = as.real.app
	}
	return as, nil
}

// SupportsAddressSpaceIO implements platform.Platform.
func (p *testPlatform) SupportsAddressSpaceIO() bool { return p.asio }

// HaveGlobalMemoryBarrier implements platform.Platform.
func (*testPlatform) HaveGlobalMemoryBarrier() bool { return false }

// GlobalMemoryBarrier implements platform.Platform.
func (*testPlatform) GlobalMemoryBarrier() error { panic("there is no memory barrier") }

// MapUnit implements platform.Platform.
func (p *testPlatform) MapUnit() uint64 { return p.mapUnit }

// MinUserAddress implements platform.Platform.
func (p *testPlatform) MinUserAddress() hostarch.Addr { return p.layout().MinAddr }

// MaxUserAddress implements platform.Platform.
func (p *testPlatform) MaxUserAddress() hostarch.Addr { return p.layout().MaxAddr }

// NewContext implements platform.Platform.
func (*testPlatform) NewContext(context.Context) platform.Context { panic("nothing runs here") }

// SeccompInfo implements platform.Platform.
func (*testPlatform) SeccompInfo() platform.SeccompInfo { return nil }

// ConcurrencyCount implements platform.Platform.
func (p *testPlatform) ConcurrencyCount() int {
	if p.ownThreads {
		return math.MaxInt
	}
	return 1
}

// layout returns a layout that fits the address spaces.
func (p *testPlatform) layout() arch.MmapLayout {
	if !p.real {
		return arch.MmapLayout{
			MinAddr:          0x10000,
			MaxAddr:          0x7ffffffff000,
			BottomUpBase:     0x2aaaaaaaa000,
			TopDownBase:      0x7fffe0000000,
			DefaultDirection: arch.MmapTopDown,
			MaxStackRand:     16 << 20,
		}
	}
	return arch.MmapLayout{
		MinAddr:          p.app.Start,
		MaxAddr:          p.app.End,
		BottomUpBase:     p.app.Start + realSize/2,
		TopDownBase:      p.app.End - 1<<30,
		DefaultDirection: arch.MmapTopDown,
		MaxStackRand:     16 << 20,
	}
}

// StateTypeName implements state.Type.
func (*testPlatform) StateTypeName() string { return "pkg/sentry/mm.testPlatform" }

// StateFields implements state.Type.
func (*testPlatform) StateFields() []string {
	return []string{"world", "label", "real", "asio", "mapUnit", "appStart", "appEnd"}
}

// StateSave implements state.SaverLoader.
func (p *testPlatform) StateSave(sink state.Sink) {
	sink.SaveValue(0, p.w.key)
	for i, field := range []any{&p.hooks.name, &p.real, &p.asio, &p.mapUnit, &p.app.Start, &p.app.End} {
		sink.Save(i+1, field)
	}
}

// StateLoad implements state.SaverLoader.
func (p *testPlatform) StateLoad(_ goctx.Context, source state.Source) {
	for i, field := range []any{&p.hooks.name, &p.real, &p.asio, &p.mapUnit, &p.app.Start, &p.app.End} {
		source.Load(i+1, field)
	}
	source.LoadValue(0, new(int), func(key any) {
		p.w = worldNumber(key.(int))
		p.hooks.t = p.w.t
	})
}

func init() {
	state.Register((*testPlatform)(nil))
}

// testMM is a MemoryManager with all that belongs to it.
type testMM struct {
	*MemoryManager
	t    testing.TB
	w    *world
	name string
	ctx  *testCtx
	mf   *pgalloc.MemoryFile
	p    *testPlatform
	as   *recordingAS

	// base is an address with some GiB of room behind it, aligned to huge pages.
	// Nothing is placed there unless asked for.
	base hostarch.Addr

	dead bool // DecUsers was called, or a checkpoint took over

	protecting *protecting
}

// protecting are the ranges that calls of MProtect are at work in.
type protecting struct {
	mu     sync.Mutex
	ranges []hostarch.AddrRange
}

// MProtect is that of the MemoryManager, and noted while it runs.
func (m *testMM) MProtect(addr hostarch.Addr, length uint64, perms hostarch.AccessType, growsDown bool) error {
	ar, ok := addr.ToRange(length)
	if !ok || growsDown {
		ar = everywhere
	}
	m.protecting.mu.Lock()
	m.protecting.ranges = append(m.protecting.ranges, ar)
	m.protecting.mu.Unlock()
	defer func() {
		m.protecting.mu.Lock()
		defer m.protecting.mu.Unlock()
		i := slices.Index(m.protecting.ranges, ar)
		m.protecting.ranges = slices.Delete(m.protecting.ranges, i, i+1)
	}()
	return m.MemoryManager.MProtect(addr, length, perms, growsDown)
}

// now returns the ranges of the calls that have begun and not returned.
func (p *protecting) now() []hostarch.AddrRange {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.ranges)
}

// mmConfig is what newTestMM can be asked for.
type mmConfig struct {
	platformConfig
	mf     *pgalloc.MemoryFile
	layout func(*arch.MmapLayout)
}

// onRealMemory makes an application's accesses possible; see load and store.
func onRealMemory(c *mmConfig) { c.real = true }

// withASIO makes the platform support AddressSpaceIO.
func withASIO(c *mmConfig) { c.real, c.asio = true, true }

// withMapUnit sets the platform's MapUnit.
func withMapUnit(n uint64) func(*mmConfig) {
	return func(c *mmConfig) { c.mapUnit = n }
}

// withFile uses a memory file that exists.
func withFile(mf *pgalloc.MemoryFile) func(*mmConfig) {
	return func(c *mmConfig) { c.mf = mf }
}

// withLayout changes the layout.
func withLayout(change func(*arch.MmapLayout)) func(*mmConfig) {
	return func(c *mmConfig) { c.layout = change }
}

// bottomUp makes the layout place mappings upwards.
func bottomUp(c *mmConfig) {
	c.layout = func(l *arch.MmapLayout) { l.DefaultDirection = arch.MmapBottomUp }
}

// newTestMM returns an empty MemoryManager with one user, who leaves at the end of
// the test. What is left over then fails the test.
func newTestMM(t testing.TB, mods ...func(*mmConfig)) *testMM {
	t.Helper()
	var c mmConfig
	for _, mod := range mods {
		mod(&c)
	}
	if c.mf == nil {
		c.mf = newTestFile(t)
	}
	p := newTestPlatform(t, c.platformConfig)
	m, err := NewMemoryManager(p, c.mf)
	if err != nil {
		t.Fatalf("NewMemoryManager: %v", err)
	}
	m.layout = p.layout()
	if c.layout != nil {
		c.layout(&m.layout)
	}
	return wrapMM(t, m, testContext(t, c.mf))
}

// wrapMM makes m, which a testPlatform is under, a part of t's world.
func wrapMM(t testing.TB, m *MemoryManager, ctx *testCtx) *testMM {
	w := worldOf(t)
	tm := &testMM{
		protecting:    new(protecting),
		MemoryManager: m,
		t:             t,
		w:             w,
		name:          w.name(m, "mm"),
		ctx:           ctx,
		mf:            m.mf,
		p:             m.p.(*testPlatform),
		as:            m.as.(*recordingAS),
		base:          hostarch.Addr(roundUpTo(uint64(m.layout.MinAddr), 1<<30)),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mms = append(w.mms, tm)
	return tm
}

func roundUpTo(n, unit uint64) uint64 {
	return (n + unit - 1) &^ (unit - 1)
}

// fork forks m.
func (m *testMM) fork() *testMM {
	m.t.Helper()
	child, err := m.Fork(m.ctx)
	if err != nil {
		m.t.Fatalf("Fork: %v", err)
	}
	return wrapMM(m.t, child, m.ctx.clone())
}

// severalThreads has m forked, for the rest of the test, as if other threads might write to its memory meanwhile.
func (m *testMM) severalThreads() {
	m.IncUsers()
	m.t.Cleanup(func() { m.DecUsers(m.ctx) })
}

// exit makes m's user leave.
func (m *testMM) exit() {
	m.dead = true
	m.DecUsers(m.ctx)
}

// saveAndRestore saves m as a checkpoint does and returns what is restored from
// that, which takes m's place. All testMappables and the like that m refers to
// are replaced too: find them by replacementOf. The memory file stays.
func (m *testMM) saveAndRestore() *testMM {
	m.t.Helper()
	if err := m.InvalidateUnsavable(m.ctx); err != nil {
		m.t.Fatalf("InvalidateUnsavable: %v", err)
	}
	var image bytes.Buffer
	old := m.MemoryManager
	if _, err := state.Save(m.ctx, &image, &old); err != nil {
		m.t.Fatalf("Save: %v", err)
	}
	m.dead = true
	var restored *MemoryManager
	if _, err := state.Load(m.ctx, &image, &restored); err != nil {
		m.t.Fatalf("Load: %v", err)
	}
	return wrapMM(m.t, restored, m.ctx)
}

// replacementOf returns what has come back from a checkpoint for a testMappable,
// testIdentity or sharedSet.
func replacementOf[T comparable](w *world, list []T, old T) T {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range list {
		if w.names[o] == w.names[old] {
			return o
		}
	}
	return old
}

func (m *testMM) takeDown() {
	if m.dead {
		return
	}
	m.check()
	m.exit()
	if !m.as.released {
		m.t.Errorf("%s was not released with its last user", m.as.hooks.name)
	}
	if n := m.vmas.Snapshot().Len(); n != 0 {
		m.t.Errorf("%s has %d vmas left without users", m.name, n)
	}
	if n := m.pmas.Len(); n != 0 {
		m.t.Errorf("%s has %d pmas left without users", m.name, n)
	}
	if !m.readers.idle() {
		m.t.Errorf("%s: readers have not left, or identities wait to be released", m.name)
	}
}

// check validates all of m.
func (m *testMM) check() {
	m.t.Helper()
	if err := m.validate(); err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
	if err := m.checkHost(); err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
}

// checkHost returns an error if the host has something mapped that no pma stands
// for, or with more permissions than it has and is being mapped with, or MProtect is taking away. It may be called at any time.
func (m *testMM) checkHost() error {
	// For writing: who has it locked for reading sees pages gone that the host has yet to unmap.
	m.activeMu.Lock()
	defer m.activeMu.Unlock()
	if m.MemoryManager.as == nil {
		return nil
	}
	// Noted before looking: what ends meanwhile was there. Nothing that changes pmas begins.
	protecting, underWay := m.protecting.now(), m.beingMapped()
	for _, h := range m.as.mapped(everywhere) {
		for a := h.Start; a < h.End; a += pageSize {
			if m.hostPendingLocked(a) {
				continue
			}
			e, ok := m.pmas.Find(uint64(a))
			page := hostarch.AddrRange{Start: a, End: a + pageSize}
			switch {
			case !ok:
				return fmt.Errorf("the host has %v mapped to %s, where there is no pma", page, fileString(m.w, h.file, h.fileRange(page)))
			case e.Value.file != h.file || e.Value.fileRange(e.Start, page) != h.fileRange(page):
				return fmt.Errorf("the host has %v mapped to %s, where the pma has %s", page, fileString(m.w, h.file, h.fileRange(page)), fileString(m.w, e.Value.file, e.Value.fileRange(e.Start, page)))
			case !e.Value.effectivePerms.SupersetOf(h.perms) && !mapsAs(underWay, page, e.Value.effectivePerms) && !slices.ContainsFunc(protecting, func(ar hostarch.AddrRange) bool { return ar.Contains(a) }):
				return fmt.Errorf("the host allows %v at %v, where the pma allows %v", h.perms, page, e.Value.effectivePerms)
			}
		}
	}
	return nil
}

// beingMapped returns what the host is being asked to map.
func (m *testMM) beingMapped() (parts []mappedPart) {
	m.underWay.mu.Lock()
	defer m.underWay.mu.Unlock()
	for _, u := range m.underWay.maps {
		parts = append(parts, u.parts...)
	}
	return parts
}

// mapsAs returns whether page is in parts with permissions at: until the host has mapped it, it may allow more.
func mapsAs(parts []mappedPart, page hostarch.AddrRange, at hostarch.AccessType) bool {
	return slices.ContainsFunc(parts, func(p mappedPart) bool {
		return p.perms == at && page.Start >= p.start && uint64(page.Start-p.start) < p.fr.Length()
	})
}

// hostPendingLocked returns whether an operation is about to unmap a from the
// host.
func (m *testMM) hostPendingLocked(a hostarch.Addr) bool {
	if m.frozen == nil {
		return false
	}
	for _, fz := range m.frozen.ranges {
		if fz.Contains(a) && fz.host {
			return true
		}
	}
	return false
}

// mmapMod changes what is asked of MMap.
type mmapMod func(*memmap.MMapOpts)

// mmapOpts returns options for n bytes of private anonymous memory with the given
// permissions, changed by mods.
func mmapOpts(n uint64, perms hostarch.AccessType, mods ...mmapMod) memmap.MMapOpts {
	opts := memmap.MMapOpts{Length: n, Perms: perms, MaxPerms: hostarch.AnyAccess, Private: true}
	for _, mod := range mods {
		mod(&opts)
	}
	return opts
}

// fixedAt is MAP_FIXED.
func fixedAt(addr hostarch.Addr) mmapMod {
	return func(o *memmap.MMapOpts) { o.Addr, o.Fixed, o.Unmap = addr, true, true }
}

// noReplaceAt is MAP_FIXED_NOREPLACE.
func noReplaceAt(addr hostarch.Addr) mmapMod {
	return func(o *memmap.MMapOpts) { o.Addr, o.Fixed, o.NoReplace = addr, true, true }
}

// hintAt asks for addr without insisting.
func hintAt(addr hostarch.Addr) mmapMod {
	return func(o *memmap.MMapOpts) { o.Addr = addr }
}

// sharedFile maps f from off on, MAP_SHARED.
func sharedFile(f *testMappable, off uint64) mmapMod {
	return func(o *memmap.MMapOpts) {
		o.Mappable, o.MappingIdentity, o.Offset, o.Private = f, f.id, off, false
	}
}

// privateFile maps f from off on, MAP_PRIVATE.
func privateFile(f *testMappable, off uint64) mmapMod {
	return func(o *memmap.MMapOpts) {
		o.Mappable, o.MappingIdentity, o.Offset, o.Private = f, f.id, off, true
	}
}

// maxPerms limits what mprotect may allow later.
func maxPerms(at hostarch.AccessType) mmapMod {
	return func(o *memmap.MMapOpts) { o.MaxPerms = at }
}

// populated is MAP_POPULATE.
func populated(o *memmap.MMapOpts) { o.PlatformEffect = memmap.PlatformEffectPopulate }

// committedNow populates and has the host commit the memory.
func committedNow(o *memmap.MMapOpts) { o.PlatformEffect = memmap.PlatformEffectCommit }

// required makes MMap fail if it cannot populate.
func required(o *memmap.MMapOpts) { o.RequirePlatformEffect = true }

// locked is MAP_LOCKED or the like.
func locked(mode memmap.MLockMode) mmapMod {
	return func(o *memmap.MMapOpts) { o.MLockMode = mode }
}

// growsDown is MAP_GROWSDOWN.
func growsDown(o *memmap.MMapOpts) { o.GrowsDown = true }

// named sets the name shown in /proc/[pid]/maps.
func named(name string) mmapMod {
	return func(o *memmap.MMapOpts) { o.Name = name }
}

// mmap maps n bytes; see mmapOpts.
func (m *testMM) mmap(n uint64, perms hostarch.AccessType, mods ...mmapMod) (hostarch.Addr, error) {
	return m.MMap(m.ctx, mmapOpts(n, perms, mods...))
}

// mustMap is mmap where it has to succeed.
func (m *testMM) mustMap(n uint64, perms hostarch.AccessType, mods ...mmapMod) hostarch.Addr {
	m.t.Helper()
	addr, err := m.mmap(n, perms, mods...)
	if err != nil {
		m.t.Fatalf("MMap(%#x bytes, %v): %v", n, perms, err)
	}
	return addr
}

// mustUnmap unmaps n bytes.
func (m *testMM) mustUnmap(addr hostarch.Addr, n uint64) {
	m.t.Helper()
	if err := m.MUnmap(m.ctx, addr, n); err != nil {
		m.t.Fatalf("MUnmap(%#x, %#x): %v", addr, n, err)
	}
}

// fault handles a fault at addr, as if the application had accessed it.
func (m *testMM) fault(addr hostarch.Addr, at hostarch.AccessType) error {
	return m.HandleUserFault(m.ctx, addr, at, 0)
}

// mustFault is fault where it has to succeed, for each page of n bytes.
func (m *testMM) mustFault(addr hostarch.Addr, n uint64, at hostarch.AccessType) {
	m.t.Helper()
	for a := addr; a < addr+hostarch.Addr(n); a += pageSize {
		if err := m.fault(a, at); err != nil {
			m.t.Fatalf("fault at %#x for %v: %v", a, at, err)
		}
	}
}

// maps returns the text of /proc/[pid]/maps.
func (m *testMM) maps() string {
	var buf bytes.Buffer
	m.ReadMapsDataInto(m.ctx, m.MapsCallbackFuncForBuffer(&buf))
	return buf.String()
}

// smaps returns the text of /proc/[pid]/smaps.
func (m *testMM) smaps() string {
	var buf bytes.Buffer
	m.ReadSmapsDataInto(m.ctx, &buf)
	return buf.String()
}

// rangeAt returns [addr, addr + n).
func rangeAt(addr hostarch.Addr, n uint64) hostarch.AddrRange {
	return hostarch.AddrRange{Start: addr, End: addr + hostarch.Addr(n)}
}
