package mm

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"gvisor.dev/gvisor/pkg/hostarch"
	"gvisor.dev/gvisor/pkg/sentry/memmap"
)

// captured is all that an operation could change, as text: lines by section. Two
// of them are compared by diff.
type captured map[string][]string

// capture describes the whole world of m's test: m's vmas with all their fields,
// its counters, pmas and host mappings, the reference counts of all pages, the
// registrations with all Mappables, and the reference counts of all identities.
// Other MemoryManagers of the test are included.
func (m *testMM) capture() captured {
	c := captured{}
	for _, mm := range m.w.mms {
		if mm.dead {
			continue
		}
		c[mm.name+" vmas"], c[mm.name+" counters"] = mm.describeVMAs()
		c[mm.name+" pmas"] = mm.describePMAs()
		c[mm.name+" host"] = mm.as.dump()
	}
	for _, s := range m.w.sets {
		c[s.name+" registrations"] = s.dump()
	}
	for _, id := range m.w.ids {
		c[id.hooks.name+" references"] = []string{fmt.Sprint(id.count())}
	}
	for _, f := range m.w.files {
		for _, r := range fileRefs(f.mf) {
			name := m.w.nameOf(f.mf) + " references"
			c[name] = append(c[name], fmt.Sprintf("%v %d", r.FileRange, r.refs))
		}
	}
	return c
}

// without returns c without the sections whose names contain what.
func (c captured) without(what string) captured {
	rest := captured{}
	for name, lines := range c {
		if !strings.Contains(name, what) {
			rest[name] = lines
		}
	}
	return rest
}

// diff returns how after differs from before, and nothing if it does not. A line
// that is gone begins with -, a new one with +.
func diff(before, after captured) string {
	var names []string
	for name := range before {
		names = append(names, name)
	}
	for name := range after {
		if _, ok := before[name]; !ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	var out strings.Builder
	for _, name := range names {
		old, now := before[name], after[name]
		if slices.Equal(old, now) {
			continue
		}
		fmt.Fprintf(&out, "%s:\n", name)
		for _, line := range old {
			if !slices.Contains(now, line) {
				fmt.Fprintf(&out, "  - %s\n", line)
			}
		}
		for _, line := range now {
			if !slices.Contains(old, line) {
				fmt.Fprintf(&out, "  + %s\n", line)
			}
		}
	}
	return out.String()
}

// mustBeUnchanged fails the test if anything is different from before.
func (m *testMM) mustBeUnchanged(before captured) {
	m.t.Helper()
	mustBeEqual(m.t, before, m.capture())
}

func mustBeEqual(t testing.TB, before, after captured) {
	t.Helper()
	if d := diff(before, after); d != "" {
		t.Fatalf("this has changed and should not have:\n%s", d)
	}
}

// describeVMAs returns m's vmas and counters, from one snapshot.
func (m *testMM) describeVMAs() (vmas, sums []string) {
	root := m.vmas.Snapshot()
	for r, v := range root.All() {
		vmas = append(vmas, fmt.Sprintf("%v %s", addrRange(r), m.w.fields(reflect.ValueOf(*v), "hint")))
	}
	sums = []string{fmt.Sprintf("%+v", root.Meta()), fmt.Sprintf("%d vmas", root.Len())}
	if m.mappingMu.TryLock() { // or an operation is stopped
		sums = append(sums, fmt.Sprintf("brk %v", m.heap()), fmt.Sprintf("lock mode %v", m.defMLockMode))
		m.mappingMu.Unlock()
	}
	return vmas, sums
}

// describePMAs returns m's pmas. Neighbours that could be one are shown as one:
// where they are split does not matter to anybody.
func (m *testMM) describePMAs() []string {
	m.activeMu.RLock()
	defer m.activeMu.RUnlock()
	type entry struct {
		ar hostarch.AddrRange
		pma
	}
	var all []entry
	for r, p := range m.pmas.All() {
		now := entry{addrRange(r), *p}
		if n := len(all); n != 0 {
			l := &all[n-1]
			joined := l.pma
			joined.off += uint64(l.ar.Length())
			if l.ar.End == now.ar.Start && m.w.fields(reflect.ValueOf(joined), "mappings") == m.w.fields(reflect.ValueOf(now.pma), "mappings") {
				l.ar.End = now.ar.End
				continue
			}
		}
		all = append(all, now)
	}
	var lines []string
	for _, e := range all {
		lines = append(lines, fmt.Sprintf("%v %s", e.ar, m.w.fields(reflect.ValueOf(e.pma), "mappings")))
	}
	return append(lines, fmt.Sprintf("rss %#x", m.rss.Load()))
}

// fields describes all fields of a struct, except the one named: those of vmas and
// pmas that are mere hints.
func (w *world) fields(v reflect.Value, except string) string {
	var parts []string
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if name == except || f.IsZero() {
			continue
		}
		parts = append(parts, name+"="+w.value(f))
	}
	return strings.Join(parts, " ")
}

// value describes the value of a field. What belongs to the harness is called by
// its name.
func (w *world) value(f reflect.Value) string {
	switch {
	case f.Type() == reflect.TypeFor[hostarch.AccessType]():
		at := hostarch.AccessType{Read: f.Field(0).Bool(), Write: f.Field(1).Bool(), Execute: f.Field(2).Bool()}
		return at.String()
	case f.Kind() == reflect.Interface:
		return w.value(f.Elem())
	case f.Kind() == reflect.Pointer:
		w.mu.Lock()
		defer w.mu.Unlock()
		for obj, name := range w.names {
			if o := reflect.ValueOf(obj); o.Kind() == reflect.Pointer && o.Pointer() == f.Pointer() {
				return name
			}
		}
		return fmt.Sprintf("%v:%#x", f.Type(), f.Pointer())
	case f.Kind() == reflect.String:
		return fmt.Sprintf("%q", f.String())
	case f.CanUint():
		return fmt.Sprintf("%#x", f.Uint())
	}
	return fmt.Sprint(f)
}

// residentBytes returns how many bytes of ar have pmas.
func (m *testMM) residentBytes(ar hostarch.AddrRange) uint64 {
	m.activeMu.RLock()
	defer m.activeMu.RUnlock()
	return m.pmas.Covered(treeRange(ar))
}

// pmaAt returns a copy of the pma at addr, its range and the file range of the page
// at addr.
func (m *testMM) pmaAt(addr hostarch.Addr) (p pma, ar hostarch.AddrRange, page memmap.FileRange, ok bool) {
	m.activeMu.RLock()
	defer m.activeMu.RUnlock()
	e, ok := m.pmas.Find(uint64(addr))
	if !ok {
		return pma{}, hostarch.AddrRange{}, memmap.FileRange{}, false
	}
	return *e.Value, addrRange(e.Range), e.Value.fileRange(e.Start, rangeAt(addr.RoundDown(), pageSize)), true
}

// vmaAt returns the vma at addr and its range.
func (m *testMM) vmaAt(addr hostarch.Addr) (*vma, hostarch.AddrRange, bool) {
	e, ok := m.vmas.Snapshot().Find(uint64(addr))
	return e.Value, addrRange(e.Range), ok
}
