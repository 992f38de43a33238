public class Debugged {
    static int add(int n) {
        int result = n + 1;
        return result;
    }

    public static void main(String[] args) {
        System.out.println("result " + add(41));
    }
}
