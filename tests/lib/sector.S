/* SPDX-License-Identifier: BSD-3-Clause */
/* A disk that checks itself when it is booted (BIOS): reads all of it by INT 13h
 * and compares the sum, writes its last sector, reads that again, and ends QEMU
 * (isa-debug-exit at 0xf4).  QEMU's exit status is 33 when all was well, else 3:
 * a read failed, 5: wrong bytes, 7: the write failed, 9: it was not kept.
 * lib/make-sector fills in the sum.
 */
	.code16
	.set CHUNK, 46			/* sectors; 89 chunks are 4,094 sectors */
	.set BUFFER, 0x1000		/* segment */
	.globl _start
_start:	cli
	xorw	%ax, %ax
	movw	%ax, %ds
	movw	%ax, %ss
	movw	$0x7c00, %sp
	sti
	cld
	movw	$BUFFER, %ax
	movw	%ax, %es
	movb	%dl, drive

next:	movb	$0x42, %ah
	call	disk
	movb	$1, %al
	jc	quit
	movl	sum, %ebx
	xorw	%di, %di
	movw	$(CHUNK * 128), %cx
1:	addl	%es:(%di), %ebx
	addw	$4, %di
	loop	1b
	movl	%ebx, sum
	addl	$CHUNK, lba
	cmpl	$4095, lba
	jb	next
	cmpl	expected, %ebx
	movb	$2, %al
	jne	quit

	movw	$1, count
	call	copy
	movw	$0x4300, %ax
	call	disk
	movb	$3, %al
	jc	quit
	movl	$0, %es:0
	movb	$0x42, %ah
	call	disk
	movb	$4, %al
	jc	quit
	movw	$text, %si
	xorw	%di, %di
	movw	$(end - text), %cx
	repe cmpsb
	movb	$4, %al
	jne	quit
	movb	$0x10, %al
quit:	outb	%al, $0xf4
	hlt
	jmp	quit

disk:	movw	$packet, %si
	movb	drive, %dl
	int	$0x13
	ret
copy:	movw	$text, %si
	xorw	%di, %di
	movw	$(end - text), %cx
	rep movsb
	ret

drive:	.byte	0
	.balign	4
sum:	.long	0
packet:	.byte	16, 0
count:	.word	CHUNK
	.word	0, BUFFER
lba:	.long	1, 0
text:	.ascii	"written by the guest"
end:
	.org	0x1b8			/* 440 */
expected:
	.long	0
	/* A partition, by whose end iPXE finds a geometry: 64 heads, 32 sectors
	 * (with 255 and 63, 2 MiB are no whole cylinder).
	 */
	.org	0x1be
	.byte	0x80, 0, 2, 0, 0x83, 63, 32, 1
	.long	1, 4095
	.org	0x1fe
	.word	0xaa55
