"""What a virtual machine executes: it computes each page's content as the oracle does. Pure bytes, x86-64.

All places are held in registers that never change, so the program runs wherever it lies.
"""

from __future__ import annotations

import struct

from sim.record.page_words import MIX, MIX_LAST, PAGE, STARTS, WORD


def _mixed(shift: int, factor_at: int | None) -> bytes:
    """word ^= word >> shift; word *= the parameter at `factor_at`."""
    code = b"\x48\x89\xc6" + b"\x48\xc1\xee" + bytes([shift]) + b"\x48\x31\xf0"  # mov rsi, rax; shr rsi; xor rax, rsi
    return code if factor_at is None else code + b"\x48\x0f\xaf\x45" + bytes([factor_at])  # imul rax, [rbp + ..]


def _written() -> bytes:
    """A page with content: rax its number, edx its generation, rdi where it lies."""
    code = b"\x49\x0f\xaf\xc4"  # imul rax, r12
    code += b"\x48\x89\xd6" + b"\x49\x0f\xaf\xf5"  # mov rsi, rdx; imul rsi, r13
    code += b"\x48\x01\xf0" + b"\x48\x03\x45\x00"  # add rax, rsi; add rax, [rbp]
    code += b"".join(_mixed(shift, 16 + 8 * index) for index, (shift, _) in enumerate(MIX)) + _mixed(MIX_LAST, None)
    code += b"\x48\xab"  # stosq
    code += b"\x25" + struct.pack("<I", STARTS)  # and eax, STARTS
    code += b"\x49\x8d\x34\xc1"  # lea rsi, [r9 + rax * 8]
    return code + b"\xb9" + struct.pack("<I", PAGE // WORD - 1) + b"\xf3\x48\xa5"  # mov ecx, ..; rep movsq


def program() -> bytes:
    """For ever: write the pages of the list, each with its generation, then store to the door."""
    zeros = b"\x31\xc0" + b"\xb9" + struct.pack("<I", PAGE // WORD) + b"\xf3\x48\xab"  # xor eax, eax; ..; rep stosq
    written = _written()
    written += b"\xeb" + bytes([len(zeros)])  # jmp over the zeros
    body = b"\x41\x8b\x07" + b"\x41\x8b\x57\x04" + b"\x49\x83\xc7\x08"  # mov eax, [r15]; mov edx, [r15 + 4]; add r15, 8
    body += b"\x49\x89\xc0" + b"\x48\x89\xc7" + b"\x48\xc1\xe7\x0c"  # mov r8, rax; mov rdi, rax; shl rdi, 12
    body += b"\x85\xd2" + b"\x78" + bytes([len(written)])  # test edx, edx; js to the zeros: the bit ZEROED
    body += written + zeros
    body += b"\x43\x89\x14\x82" + b"\x48\xff\xcb"  # mov [r10 + r8 * 4], edx; dec rbx
    body += b"\x0f\x85" + struct.pack("<i", -(len(body) + 6))  # jnz to the next
    top = b"\x4d\x89\xdf" + b"\x48\x8b\x5d\x08" + b"\x48\x85\xdb"  # mov r15, r11; mov rbx, [rbp + 8]; test rbx, rbx
    whole = top + b"\x0f\x84" + struct.pack("<i", len(body)) + body  # jz to the end
    whole += b"\x48\x89\xe8"  # mov rax, rbp: zeros, executed, are add [rax], al, and spoil the parameters alone
    whole += b"\x41\x89\x06"  # mov [r14], eax
    return whole + b"\xe9" + struct.pack("<i", -(len(whole) + 5))  # jmp to the top


PROGRAM_PAGE = program().ljust(PAGE, b"\0")
"""The program as a page of a guest's memory holds it."""
