#include "textflag.h"

// func spin(n uint64)
// Two instructions for each of n.
TEXT ·spin(SB), NOSPLIT, $0-8
	MOVQ n+0(FP), CX
again:
	DECQ CX
	JNZ  again
	RET
