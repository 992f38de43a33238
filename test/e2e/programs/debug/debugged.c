#include <stdio.h>

static int add(int n)
{
	int result = n + 1;
	return result;
}

int main(void)
{
	printf("result %d\n", add(41));
	return 0;
}
