/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#pragma once

/* Reading the kernel's own structures (Linux 6.2 or later, CAP_PERFMON). Where there is
 * nothing to read, what is read is zero.
 */
#include <bpf/bpf_core_read.h>

#include "kernel.h"

extern void *bpf_cast_to_kern_ctx(void *obj) __ksym __weak;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define CAST(type, address) \
	((type *)bpf_rdonly_cast((const void *)(address), bpf_core_type_id_kernel(type)))

/* A pointer as a number: the verifier lets nobody reckon with what it takes for
 * a pointer.
 */
#define WORD(field) ((__u64)CAST(struct timespec64, &(field))->tv_sec)
