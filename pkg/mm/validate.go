package mm

import (
	"fmt"

	"gvisor.dev/gvisor/pkg/hostarch"

	"sentrymm/pkg/vmatree"
)

// validateOps switches validate on at the end of every operation. The build tag
// mmvalidate sets it.
var validateOps = validateByDefault

// validateIfEnabled panics if validateOps is set and mm is not in order.
//
// Preconditions: mappingMu is locked, or nobody else knows mm; activeMu is not.
func (mm *MemoryManager) validateIfEnabled() {
	if !validateOps {
		return
	}
	if err := mm.validateLocked(); err != nil {
		panic(fmt.Sprintf("mm: %v\n%v", err, mm))
	}
}

// validate returns an error that names the first thing out of order.
//
// Preconditions: mappingMu and activeMu are not locked.
func (mm *MemoryManager) validate() error {
	mm.mappingMu.Lock()
	defer mm.mappingMu.Unlock()
	return mm.validateLocked()
}

// validateLocked is validate.
//
// Preconditions: mappingMu is locked; activeMu is not.
func (mm *MemoryManager) validateLocked() error {
	root := mm.vmas.Snapshot()
	if err := root.Check(); err != nil {
		return fmt.Errorf("vmas: %w", err)
	}
	if err := validateVMAs(root); err != nil {
		return err
	}
	mm.activeMu.RLock()
	defer mm.activeMu.RUnlock()
	if err := mm.pmas.Check(); err != nil {
		return fmt.Errorf("pmas: %w", err)
	}
	return mm.validatePMAs(root)
}

// validateVMAs checks each vma, its neighbours and the counters.
func validateVMAs(root vmaSnapshot) error {
	var count counters
	var prev vmatree.Range
	var before *vma
	for r, v := range root.All() {
		if !addrRange(r).IsPageAligned() {
			return fmt.Errorf("vma %v is not page-aligned", r)
		}
		if v.effectivePerms != v.realPerms.Effective() || !v.maxPerms.SupersetOf(v.effectivePerms) {
			return fmt.Errorf("vma %v: permissions %v, effectively %v, at most %v", r, v.realPerms, v.effectivePerms, v.maxPerms)
		}
		// A shared mapping of /dev/zero that can never be written to is anonymous.
		if v.mappable == nil && (v.off != 0 || v.canWriteMappable()) {
			return fmt.Errorf("vma %v is anonymous, but shared or at offset %#x", r, v.off)
		}
		if before != nil && prev.End == r.Start && !v.countsAttachments() {
			if _, ok := joinVMAs(prev, before, v); ok {
				return fmt.Errorf("vmas %v and %v are alike, but not merged", prev, r)
			}
		}
		count.add(v, r.Len())
		prev, before = r, v
	}
	if count != root.Meta() {
		return fmt.Errorf("counters are %+v; the vmas make %+v", root.Meta(), count)
	}
	return nil
}

// validatePMAs checks that pmas lie in vmas which allow what they allow, and not in
// frozen ranges.
//
// Preconditions: activeMu is locked.
func (mm *MemoryManager) validatePMAs(root vmaSnapshot) error {
	var rss uint64
	for r, p := range mm.pmas.All() {
		rss += r.Len()
		if p.private && p.file != mm.mf {
			return fmt.Errorf("pma %v is private, but in %T", r, p.file)
		}
		if p.huge && !p.private {
			return fmt.Errorf("pma %v is huge, but not private", r)
		}
		if mm.frozen.overlapsEmpty(addrRange(r)) {
			return fmt.Errorf("pma %v lies in a frozen range", r)
		}
		covered := r.Start
		for vr, v := range root.Within(r) {
			if vr.Start > covered {
				break
			}
			covered = vr.End
			if !v.effectivePerms.SupersetOf(p.effectivePerms) || !v.maxPerms.SupersetOf(p.maxPerms) {
				return fmt.Errorf("pma %v allows %v, at most %v; its vma %v allows %v, at most %v", r, p.effectivePerms, p.maxPerms, vr, v.effectivePerms, v.maxPerms)
			}
			if v.mappable == nil && !p.private {
				return fmt.Errorf("pma %v is shared, its vma %v anonymous", r, vr)
			}
		}
		if covered < r.End {
			return fmt.Errorf("pma %v: nothing is mapped at %#x", r, hostarch.Addr(covered))
		}
		if p.needCOW && (p.effectivePerms.Write || p.maxPerms.Write) {
			return fmt.Errorf("pma %v is copy-on-write, but writable", r)
		}
	}
	if rss != mm.rss.Load() {
		return fmt.Errorf("rss is %#x; the pmas make %#x", mm.rss.Load(), rss)
	}
	return nil
}
