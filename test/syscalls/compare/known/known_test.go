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
		require.True(t, d.Leads != nil || d.Side != nil || d.Ends != nil || d.Result != nil || d.Line != nil, d.Name)
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

// Of two sorts of steps that show a difference together, some programs have one and others the other.
func TestProgramsHaveOneSideOfADifference(t *testing.T) {
	sides := map[string]map[int]bool{}
	for seed := range uint64(60) {
		p := program.Generate(seed, 200, Filter(seed))
		require.Len(t, p.Steps, 200)
		require.True(t, Together(p.Steps), "program %d", seed)
		for _, s := range p.Steps {
			eachSide(s, func(about string, side int) bool {
				if sides[about] == nil {
					sides[about] = map[int]bool{}
				}
				sides[about][side] = true
				return true
			})
		}
	}
	require.NotEmpty(t, sides)
	for about, seen := range sides {
		require.Len(t, seen, 2, about)
	}
}

func TestStepsOfBothSidesAreNotTogether(t *testing.T) {
	p, err := program.Parse("main mmap p0 1p r private|fixed disk 0p m0\nmain load p0\nmain pwrite disk p1 1p 0p\nmain pwrite tmpfs p1 1p 0p\n")
	require.NoError(t, err)
	require.False(t, Together(p.Steps))
	require.True(t, Together(p.Steps[:2]))
	require.True(t, Together(p.Steps[1:]))
	p.Steps[2].Args[0] = int64(program.Tmpfs)
	require.True(t, Together(p.Steps), "another file")
}

func TestDifferencesOfOnePlatform(t *testing.T) {
	s, err := program.ParseStep("main store p0 1")
	require.NoError(t, err)
	require.Equal(t, "no store at p0", Result("ptrace", s, "SIGSEGV/ACCERR at p0"))
	require.Equal(t, "SIGSEGV/ACCERR at p0", Result("systrap", s, "SIGSEGV/ACCERR at p0"))
}

func TestLimitThatLinuxDoesNotDeductEndsIt(t *testing.T) {
	s, err := program.ParseStep("main mmap p0 8p r private|anon|fixed none 0p m0")
	require.NoError(t, err)
	require.True(t, Ends(s, "EAGAIN", "p0"))
	require.False(t, Ends(s, "EAGAIN", "ENOMEM"))
	require.False(t, Ends(s, "p0", "EAGAIN"))
	s.Args[3] &^= 0x10 // MAP_FIXED
	require.False(t, Ends(s, "EAGAIN", "p0"), "nothing is replaced")
}
