package mm

import (
	"bytes"
	"fmt"

	"gvisor.dev/gvisor/pkg/context"
)

// String implements fmt.Stringer.String.
func (mm *MemoryManager) String() string {
	return mm.DebugString(context.Background())
}

// DebugString lists all vmas, as /proc/[pid]/maps does, and all pmas: addresses,
// permissions (c for copy-on-write), private or shared, memory type, offset and type
// of the file.
func (mm *MemoryManager) DebugString(ctx context.Context) string {
	var b bytes.Buffer
	b.WriteString("VMAs:\n")
	mm.ReadMapsDataInto(ctx, mm.MapsCallbackFuncForBuffer(&b))
	b.WriteString("PMAs:\n")
	mm.activeMu.RLock()
	defer mm.activeMu.RUnlock()
	for r, p := range mm.pmas.All() {
		fmt.Fprintf(&b, "%08x-%08x %s %s %08x %T\n", r.Start, r.End, p.flags(), p.file.MemoryType().ShortString(), p.off, p.file)
	}
	return b.String()
}

// flags describes what p allows.
func (p *pma) flags() string {
	flags := []byte(p.effectivePerms.String())
	if p.needCOW {
		flags[1] = 'c'
	}
	if p.private {
		return string(append(flags, 'p'))
	}
	return string(append(flags, 's'))
}
