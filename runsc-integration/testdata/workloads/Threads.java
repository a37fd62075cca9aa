import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.util.HexFormat;

/** Threads that make garbage in the heap and buffers outside of it, with a heap small enough to be collected often. */
public class Threads {
    public static void main(String[] args) throws Exception {
        int count = 6;
        String[] answers = new String[count];
        Thread[] threads = new Thread[count];
        for (int n = 0; n < count; n++) {
            int number = n;
            threads[n] = new Thread(() -> answers[number] = work(number));
            threads[n].start();
        }
        for (Thread thread : threads) {
            thread.join();
        }
        for (int n = 0; n < count; n++) {
            System.out.println(n + " " + answers[n]);
        }
    }

    static String work(int number) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            for (int i = 0; i < 60; i++) {
                byte[] heap = new byte[(i * 31 % 64 + 1) * 16384];
                heap[heap.length - 1] = (byte) (number + i);
                ByteBuffer outside = ByteBuffer.allocateDirect((i % 16 + 1) * 4096);
                outside.put(0, (byte) i);
                digest.update(heap);
                digest.update(outside);
            }
            return HexFormat.of().formatHex(digest.digest());
        } catch (Exception e) {
            return e.toString();
        }
    }
}
