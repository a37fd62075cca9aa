package known

import (
	"testing"

	"github.com/stretchr/testify/require"

	"sentrymm/test/syscalls/compare/program"
	"sentrymm/test/syscalls/compare/trace"
)

func TestEachDifferenceSaysWhatAndWhy(t *testing.T) {
	names := map[string]bool{}
	for _, d := range All {
		require.NotEmpty(t, d.Name)
		require.NotEmpty(t, d.Reason, d.Name)
		require.True(t, d.Leads != nil || d.Result != nil || d.Line != nil, d.Name)
		require.False(t, names[d.Name], d.Name)
		names[d.Name] = true
	}
}

// What is left is what programs are made of.
func TestMostStepsAreWanted(t *testing.T) {
	wanted, seen := map[*program.Op]int{}, map[*program.Op]int{}
	for seed := range uint64(100) {
		for _, s := range program.Generate(seed, 200, func(program.Step) bool { return true }).Steps {
			seen[s.Op]++
			if Wanted(s) {
				wanted[s.Op]++
			}
		}
	}
	for _, o := range program.Ops {
		require.Greater(t, wanted[o]*20, seen[o], "%s: %d of %d", o.Name, wanted[o], seen[o])
	}
}

func TestRangesThatBecomeAlikeAreOne(t *testing.T) {
	v := View(trace.View{Aspect: trace.Pages, Lines: []string{"p0-p1 SIGBUS/ADRALN", "p1-p4 SIGBUS/ADRERR", "p5-p6 SIGBUS/ADRERR", "p6-p7 00"}})
	require.Equal(t, []string{"p0-p4 SIGBUS", "p5-p6 SIGBUS", "p6-p7 00"}, v.Lines)
}
