/* Links refparity, as a project does that has it from Conan. */
#include <stdio.h>

#include <refparity/compare.h>

int main(void)
{
    return puts(rp_verdict_name(RP_PASS)) < 0;
}
