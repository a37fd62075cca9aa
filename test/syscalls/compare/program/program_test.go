package program

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func always(Step) bool { return true }

func TestSameSeedSameProgram(t *testing.T) {
	seen := map[string]bool{}
	for seed := range uint64(50) {
		p := Generate(seed, 100, always)
		require.Len(t, p.Steps, 100)
		require.Equal(t, p.String(), Generate(seed, 100, always).String())
		seen[p.String()] = true
	}
	require.Len(t, seen, 50, "other seeds, other programs")
}

func TestEveryOperationIsGenerated(t *testing.T) {
	seen := map[*Op]bool{}
	for seed := range uint64(200) {
		for _, s := range Generate(seed, 100, always).Steps {
			seen[s.Op] = true
		}
	}
	for _, o := range Ops {
		require.True(t, seen[o], o.Name)
	}
}

func TestUnwantedStepsAreLeftOut(t *testing.T) {
	p := Generate(3, 200, func(s Step) bool { return s.Op != Mmap })
	require.False(t, slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Op == Mmap }))
	require.Len(t, p.Steps, 200)
}

func TestTextSaysAll(t *testing.T) {
	for seed := range uint64(200) {
		p := Generate(seed, 100, always)
		again, err := Parse("# a comment\n\n" + p.String())
		require.NoError(t, err)
		require.Equal(t, p.Seed, again.Seed)
		require.True(t, slices.EqualFunc(p.Steps, again.Steps, func(a, b Step) bool {
			return a.Actor == b.Actor && a.Op == b.Op && slices.Equal(a.Args, b.Args)
		}), "program %d", seed)
	}
}

func TestWhatIsNoProgramIsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"main":                    `line 1 of a program: no step: "main"`,
		"probe 1\nmain jump p0":   `line 2 of a program: no operation: "jump"`,
		"somebody load p0":        `line 1 of a program: no actor: "somebody"`,
		"main load":               `line 1 of a program: load has 1 arguments, not 0: "main load"`,
		"main load q0":            `line 1 of a program: no address: "q0" in "main load q0"`,
		"main load m9":            `line 1 of a program: no slot: "m9" in "main load m9"`,
		"main munmap p0 p":        `line 1 of a program: no length: "p" in "main munmap p0 p"`,
		"main mprotect p0 1p q":   `line 1 of a program: no protection: "q" in "main mprotect p0 1p q"`,
		"probe 0":                 `line 1 of a program: probe has to be 1 or more, not 0`,
		"seed x\nmain munlockall": `line 1 of a program: strconv.ParseUint: parsing "x": invalid syntax`,
	} {
		_, err := Parse(text)
		require.EqualError(t, err, want)
	}
}

func TestAddressesRoundTrip(t *testing.T) {
	for _, text := range []string{"p0", "p-1", "p3+0x8", "b", "b+0x1000", "b-0x10", "m0", "m5+0xfff", "0x0", "-0x1", "0x7ffffffff000"} {
		a, err := ParseAddress(text)
		require.NoError(t, err, text)
		require.Equal(t, text, a.String())
	}
	for text, want := range map[string][2]string{"p0-p3": {"p0", "p3"}, "p-2-p-1": {"p-2", "p-1"}, "b-b+0x1000": {"b", "b+0x1000"}, "m0-m0+0x1000": {"m0", "m0+0x1000"}, "elsewhere": {"elsewhere", ""}} {
		start, end := CutRange(text)
		require.Equal(t, want, [2]string{start, end}, text)
	}
}

// The program fails where memory is stored to by a child after it was protected, whatever else there is.
func TestShrinkLeavesWhatMatters(t *testing.T) {
	fails := func(p *Program) bool {
		protected := false
		for _, s := range p.Steps {
			protected = protected || s.Op == Mprotect
			if protected && s.Op == Store && s.Actor.IsChild() {
				return true
			}
		}
		return false
	}
	shrunk := 0
	for seed := range uint64(40) {
		p := Generate(seed, 200, always)
		if !fails(p) {
			continue
		}
		shrunk++
		small := Shrink(p, fails)
		require.True(t, fails(small))
		require.Len(t, small.Steps, 2, small.String())
		require.Equal(t, []*Op{Mprotect, Store}, []*Op{small.Steps[0].Op, small.Steps[1].Op})
		require.Equal(t, Main, small.Steps[0].Actor)
		require.EqualValues(t, PageSize, small.Steps[0].Args[1], "as short as can be")
	}
	require.NotZero(t, shrunk)
}
